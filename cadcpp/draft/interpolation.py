"""Two opinions on the next token as one."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cadcpp.ngram.predictor import LONGEST, Guess
from cadcpp.util.decayed_ratio import DecayedRatio

_FORGET = 0.99
_PRIOR = 10.0  # tokens that the first weights count for
_FIRST = np.array([0.02, *[0.1] * LONGEST])


@dataclass(slots=True)
class Interpolation:
    """Weights of the n-grams' opinion beside the draft's, by the length of the match that it rests on.

    They are learned by expectation maximisation, one step for each token of text that both had an opinion on.
    """

    ngram: DecayedRatio = field(
        default_factory=lambda: DecayedRatio(_PRIOR * _FIRST, np.full(LONGEST + 1, _PRIOR), forget=_FORGET)
    )

    def weight(self, match: int) -> float:
        return self.ngram.at(match)

    def mix(self, guess: Guess, p_draft: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities of the guessed tokens, given the draft's own, [n]."""
        return np.asarray(self.left(guess) * p_draft + self.weight(guess.match) * guess.p)

    def left(self, guess: Guess) -> float:
        """The factor for the draft's own probabilities; all together still make one."""
        return 1.0 - self.weight(guess.match) * float(guess.p.sum())

    def observe(self, guess: Guess, p_draft: NDArray[np.floating], token: int) -> None:
        """The token that came, where there was a guess."""
        here, share = np.flatnonzero(guess.tokens == token), 0.0
        if len(here):
            i = int(here[0])
            share = self.weight(guess.match) * float(guess.p[i]) / float(self.mix(guess, p_draft)[i])
        self.ngram.learn(guess.match, share)
