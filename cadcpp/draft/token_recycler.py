"""What a model said before, kept for when the same tokens come again."""

from collections.abc import Sequence

LONGEST = 3  # tokens that have to be the same
_MOST = 1 << 14  # entries, some 3 MB


class TokenRecycler:
    """The likeliest next token that a model last gave after one, two and three tokens.

    Token recycling (arXiv 2408.08696) as a draft of the draft: what was drafted and not accepted is often
    drafted again, a few tokens on.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[int, ...], tuple[int, float]] = {}

    def note(self, before: Sequence[int], token: int, p: float) -> None:
        """After ``before`` the model held ``token`` for likeliest, with probability ``p``."""
        for n in range(1, min(LONGEST, len(before)) + 1):
            key = tuple(before[-n:])
            self._said.pop(key, None)  # the latest stand last
            self._said[key] = token, p
        while len(self._said) > _MOST:
            del self._said[next(iter(self._said))]

    def recall(self, before: Sequence[int]) -> tuple[int, float, int] | None:
        """Token, probability and how many tokens were the same, of the longest match; None if there is none."""
        for n in range(min(LONGEST, len(before)), 0, -1):
            if (said := self._said.get(tuple(before[-n:]))) is not None:
                return *said, n
        return None
