"""A drafter without a model: text that repeats itself drafts for itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cadcpp.config import TreeConfig
from cadcpp.drafter import WithoutModel
from cadcpp.growth import Growth
from cadcpp.lookup import ContextLookup, Continuation
from cadcpp.ngram.katz import Katz
from cadcpp.tree import TokenTree

_LONGEST = 6  # tokens of a match
_WIDTH = 4  # next tokens to consider
_WIDEST = 8  # ... of the n-gram model
_FORGET = 0.98
_NEVER = 1e-30  # a probability whose logarithm can still be taken
_Next = tuple[NDArray[np.int64], NDArray[np.float32]]  # tokens, and their probabilities


@dataclass(slots=True)
class Belief:
    """How often what followed a match follows it again, by the length of the match; learned from the text."""

    right: NDArray[np.float64] = field(default_factory=lambda: np.ones(_LONGEST + 1))
    seen: NDArray[np.float64] = field(default_factory=lambda: np.full(_LONGEST + 1, 4.0))

    def observe(self, found: Sequence[Continuation], token: int) -> None:
        """One token that came, and what had been found for its place."""
        for match in {c.match for c in found}:
            share = sum(c.count / c.total for c in found if c.match == match and c.tokens[0] == token)
            self.right[match] = _FORGET * self.right[match] + share
            self.seen[match] = _FORGET * self.seen[match] + 1

    def probabilities(self, found: Sequence[Continuation]) -> NDArray[np.float32]:
        """Of what was found, [n]; a shorter match has its say as far as longer ones leave room."""
        left, chances = 1.0, dict[int, float]()
        for match in sorted({c.match for c in found}, reverse=True):
            believed = float(self.right[match] / self.seen[match])
            chances[match] = left * believed
            left *= 1 - believed
        return np.array([chances[c.match] * c.count / c.total for c in found], np.float32)


class Copier(WithoutModel):
    """Prompt lookup decoding (Saxena 2023) as a tree: every place where the last words stood before has its branch."""

    def __init__(self, never: Sequence[int] = (), katz: Katz | None = None) -> None:
        self._lookup, self._belief, self._katz = ContextLookup(_LONGEST), Belief(), katz
        self._never = np.array(never, np.int32)

    def grow(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> TokenTree:
        self._read(ids)
        growth, paths, rows = Growth(ids[-1], config, max_depth, self._never), {0: list[int]()}, [0]
        self.n_evaluated = 0
        while rows and max_depth > 0:
            for row in rows:
                token, parent, _ = growth.position(row)
                paths[row] = [*paths[parent], token] if row else []
            for row, (tokens, p) in zip(rows, self._following(ids, [paths[row] for row in rows]), strict=True):
                growth.learn(row, tokens, np.log(np.maximum(p, _NEVER)))
            self.n_evaluated += len(rows)
            rows = growth.frontier()
        return growth.tree()

    def _following(self, ids: Sequence[int], paths: list[list[int]]) -> list[_Next]:
        """What may follow each path: what the text says, and as far as it is silent, what n-grams say."""
        copied = [self._copied(path) for path in paths]
        if self._katz is None:
            return copied
        last = [([-1, *ids[-2:], *path])[-2:] for path in paths]
        tokens, logp = self._katz.lookup([pair[0] for pair in last], [pair[1] for pair in last], _WIDEST)
        return [_merged(mine, (t.astype(np.int64), np.exp(p))) for mine, t, p in zip(copied, tokens, logp, strict=True)]

    def _copied(self, path: list[int]) -> _Next:
        found = self._lookup.propose(1, _WIDTH, path)
        return np.array([c.tokens[0] for c in found], np.int64), self._belief.probabilities(found)

    def _read(self, ids: Sequence[int]) -> None:
        """Take up the new text, and learn from each of its tokens what matches are worth."""
        self._lookup.align(ids[: len(self._lookup)])
        for token in ids[len(self._lookup) :]:
            self._belief.observe(self._lookup.propose(1, _WIDTH), token)
            self._lookup.extend([token])


def _merged(first: _Next, second: _Next) -> _Next:
    """Two sources as one: the second has its say as far as the first leaves room."""
    left = max(1.0 - float(first[1].sum()), 0.0)
    tokens, place = np.unique(np.concatenate([first[0], second[0]]), return_inverse=True)
    return tokens, np.bincount(place, np.concatenate([first[1], left * second[1]])).astype(np.float32)
