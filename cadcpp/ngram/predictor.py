"""What n-grams say may come next: those of the text so far, and a Katz model's where the text is silent."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cadcpp.ngram.katz import Katz
from cadcpp.ngram.prompt_lookup import ContextLookup, Continuation
from cadcpp.util.decayed_ratio import DecayedRatio

LONGEST = 6  # tokens of a match
_WIDTH = 4  # next tokens to consider
_WIDEST = 8  # ... of the n-gram model
_FORGET = 0.98
# How often matches of 0, 1, 2, ... tokens were right in replies of SmolLM2 to questions of ten kinds, as far as a text
# has not told yet: as if _SEEN had been seen.
_RIGHT = np.array([0.25, 0.2, 0.4, 0.6, 0.65, 0.7, 0.75])
_SEEN = 4.0


@dataclass(frozen=True, slots=True)
class Guess:
    """Next tokens, their probabilities, and the length of the match that they rest on; 0: the n-gram model alone."""

    tokens: NDArray[np.int64]  # [n]
    p: NDArray[np.float32]  # [n]
    match: int


@dataclass(slots=True)
class MatchReliability:
    """How often what followed a match follows it again, by the length of the match; learned from the text."""

    right: DecayedRatio = field(
        default_factory=lambda: DecayedRatio(_SEEN * _RIGHT, np.full(LONGEST + 1, _SEEN), forget=_FORGET)
    )

    def observe(self, found: Sequence[Continuation], token: int) -> None:
        """One token that came, and what had been found for its place."""
        for match in {c.match for c in found}:
            share = sum(c.count / c.total for c in found if c.match == match and c.tokens[0] == token)
            self.right.learn(match, share)

    def probabilities(self, found: Sequence[Continuation]) -> NDArray[np.float32]:
        """Of what was found, [n]; a shorter match has its say as far as longer ones leave room."""
        left, chances = 1.0, dict[int, float]()
        for match in sorted({c.match for c in found}, reverse=True):
            believed = self.right.at(match)
            chances[match] = left * believed
            left *= 1 - believed
        return np.array([chances[c.match] * c.count / c.total for c in found], np.float32)


class NgramPredictor:
    """Guesses the next tokens of one text, below ``n_vocab``; `read` tells it the text."""

    def __init__(self, katz: Katz | None = None, n_vocab: int | None = None) -> None:
        self._lookup, self._belief, self._katz = ContextLookup(LONGEST), MatchReliability(), katz
        self._n_vocab = n_vocab
        self._last: list[int] = []  # two tokens of the text, at most

    def read(self, ids: Sequence[int]) -> None:
        """Take up the new text, and learn from each of its tokens what matches are worth."""
        self._last = list(ids[-2:])
        self._lookup.align(ids[: len(self._lookup)])
        for token in ids[len(self._lookup) :]:
            self._belief.observe(self._lookup.propose(1, _WIDTH), token)
            self._lookup.extend([token])

    def after(self, paths: Sequence[list[int]]) -> list[Guess]:
        """What may follow the text and each path: what the text says, and as far as it is silent, what n-grams say."""
        return [self._usable(guess) for guess in self._after(paths)]

    def _after(self, paths: Sequence[list[int]]) -> list[Guess]:
        copied = [self._copied(path) for path in paths]
        if self._katz is None or not paths:
            return copied
        last = [([-1, *self._last, *path])[-2:] for path in paths]
        tokens, logp = self._katz.lookup([pair[0] for pair in last], [pair[1] for pair in last], _WIDEST)
        return [_merged(mine, t.astype(np.int64), np.exp(p)) for mine, t, p in zip(copied, tokens, logp, strict=True)]

    def _usable(self, guess: Guess) -> Guess:
        known = guess.tokens < (self._n_vocab or np.inf)
        return guess if known.all() else Guess(guess.tokens[known], guess.p[known], guess.match)

    def _copied(self, path: list[int]) -> Guess:
        found = self._lookup.propose(1, _WIDTH, path)
        tokens = np.array([c.tokens[0] for c in found], np.int64)
        return Guess(tokens, self._belief.probabilities(found), found[0].match if found else 0)


def _merged(first: Guess, tokens: NDArray[np.int64], p: NDArray[np.float32]) -> Guess:
    """Two sources as one: the second has its say as far as the first leaves room."""
    left = max(1.0 - float(first.p.sum()), 0.0)
    both, place = np.unique(np.concatenate([first.tokens, tokens]), return_inverse=True)
    return Guess(both, np.bincount(place, np.concatenate([first.p, left * p])).astype(np.float32), first.match)
