"""When text that is evaluated again and again is worth a pass of its own, after which it is kept."""

from dataclasses import dataclass

from cadcpp.tree.prices import SIZES, Floats


@dataclass(slots=True)
class CarriedText:
    """For models whose state is kept only where a whole pass is text.

    A pass without drafts writes one token and ends the carrying. It is due as soon as carrying has cost as much as it
    would: no rule that cannot see ahead is closer to the best than by a factor of two (ski rental).
    """

    spent_s: float = 0.0

    def is_due(self, n_uncached: int, round_s: Floats) -> bool:
        """Asked once a round; ``round_s``, [n], are seconds of rounds with n rows, zeros where nothing is known."""
        n = min(n_uncached, SIZES - 1)
        self.spent_s = self.spent_s + float(round_s[n] - round_s[1]) if n > 1 else 0.0
        due = 0 < float(round_s[n]) <= self.spent_s
        if due:
            self.spent_s = 0.0
        return due
