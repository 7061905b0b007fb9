"""A drafter without a model: text that repeats itself drafts for itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cadcpp.config import TreeConfig
from cadcpp.drafter import WithoutModel
from cadcpp.growth import Growth
from cadcpp.lookup import ContextLookup, Continuation
from cadcpp.tree import TokenTree

_LONGEST = 6  # tokens of a match
_WIDTH = 4  # next tokens to consider
_FORGET = 0.98


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

    def __init__(self, never: Sequence[int] = ()) -> None:
        self._lookup, self._belief = ContextLookup(_LONGEST), Belief()
        self._never = np.array(never, np.int32)

    def grow(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> TokenTree:
        self._read(ids)
        growth, paths, rows = Growth(ids[-1], config, max_depth, self._never), {0: list[int]()}, [0]
        self.n_evaluated = 0
        while rows and max_depth > 0:
            for row in rows:
                token, parent, _ = growth.position(row)
                paths[row] = [*paths[parent], token] if row else []
                found = self._lookup.propose(1, _WIDTH, paths[row])
                tokens = np.array([c.tokens[0] for c in found], np.int64)
                growth.learn(row, tokens, np.log(self._belief.probabilities(found)))
            self.n_evaluated += len(rows)
            rows = growth.frontier()
        return growth.tree()

    def _read(self, ids: Sequence[int]) -> None:
        """Take up the new text, and learn from each of its tokens what matches are worth."""
        self._lookup.align(ids[: len(self._lookup)])
        for token in ids[len(self._lookup) :]:
            self._belief.observe(self._lookup.propose(1, _WIDTH), token)
            self._lookup.extend([token])
