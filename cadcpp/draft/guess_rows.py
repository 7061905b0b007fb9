"""Guesses that go along with a decode of the draft."""

from dataclasses import dataclass, field

import numpy as np

from cadcpp.draft.token_recycler import LONGEST, TokenRecycler
from cadcpp.ngram.predictor import Guess
from cadcpp.util.decayed_ratio import DecayedRatio

_FORGET = 0.99
_BINS = 10
_PRIOR = 2.0  # guesses that a first belief counts for
_NGRAM = 0  # sources; 1, 2 and 3 are the draft itself, after as many tokens that were the same


@dataclass(slots=True)
class Usefulness:
    """How often a guess is of use to a draft's tree, by its source and by how likely that held it."""

    useful: DecayedRatio = field(
        default_factory=lambda: DecayedRatio(
            np.tile(_PRIOR * (np.arange(_BINS) + 0.5) / _BINS, (LONGEST + 1, 1)),
            np.full((LONGEST + 1, _BINS), _PRIOR),
            forget=_FORGET,
        )
    )

    def chance(self, source: int, p: float) -> float:
        """That a guess will be."""
        return self.useful.at(_place(source, p))

    def observe(self, source: int, p: float, useful: bool) -> None:
        """Whether one was."""
        self.useful.learn(_place(source, p), useful)


def _place(source: int, p: float) -> tuple[int, int]:
    return source, min(int(p * _BINS), _BINS - 1)


@dataclass(slots=True)
class GuessRow:
    """A node to evaluate, and guessed tokens after it."""

    row: int
    text: list[int]  # up to the node and beyond, as far as guessed
    chance: float = 1.0  # that the whole of it is of use
    tokens: list[int] = field(default_factory=list)
    grounds: list[tuple[int, float]] = field(default_factory=list)  # of each token: source, and probability there
    guesses: list[Guess] = field(default_factory=list)  # n-grams' after the node, and after each token

    def go_on(self, guess: Guess, said: TokenRecycler, use: Usefulness, least: float) -> bool:
        """Take along the guess that is likeliest to be of use, if with it all are so by a chance of ``least``."""
        self.guesses.append(guess)
        found = list[tuple[float, int, int, float]]()
        if len(guess.tokens):
            best = int(np.argmax(guess.p))
            p = float(guess.p[best])
            found.append((use.chance(_NGRAM, p), int(guess.tokens[best]), _NGRAM, p))
        if (recalled := said.recall(self.text)) is not None:
            token, p, n = recalled
            found.append((use.chance(n, p), token, n, p))
        if not found or max(found)[0] * self.chance < least:
            return False
        chance, token, source, p = max(found)
        self.chance *= chance
        self.tokens.append(token)
        self.text = [*self.text, token]
        self.grounds.append((source, p))
        return True
