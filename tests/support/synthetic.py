"""A drafter without a model: it knows the text and guesses it as well as it is told to."""

from collections.abc import Sequence

import numpy as np

from cadcpp.draft.base import DraftedTree, NoDrafter
from cadcpp.tree.limits import DraftBudget
from cadcpp.tree.token_tree import TokenTree

DECOYS = (1000, 40000)  # ids drawn at random: ordinary words in SmolLM2's vocabulary


class SyntheticDrafter(NoDrafter):
    """Proposes trees of exactly ``rows`` rows that hold the text's true continuation and decoys around it.

    Each next true token is in the tree with probability ``accept``; with probability ``side`` a decoy stands
    beside it that looks likelier, so that the truth lies on a side branch from there on. Whether a text is the
    same as without speculation must not depend on any of it.
    """

    def __init__(
        self,
        text: Sequence[int],
        *,
        seed: int = 0,
        accept: float = 0.85,
        side: float = 0.15,
        decoys: tuple[int, int] = DECOYS,
    ) -> None:
        self._text, self._accept, self._side, self._decoys = list(text), accept, side, decoys
        self._rng = np.random.default_rng(seed)
        self.n_side = 0  # trees with the truth on a side branch

    def grow(self, ids: Sequence[int], budget: DraftBudget) -> DraftedTree:
        rows = _Rows(ids[-1], budget.max_depth)
        if budget.max_depth >= 1:
            self._add_truth(rows, self._text[len(ids) :], budget.max_size)
            while len(rows.token) < budget.max_size:
                self._add_decoy(rows, int(self._rng.integers(len(rows.token))), self._rng.uniform(0.01, 0.5))
        return DraftedTree(tree=TokenTree.build(rows.token, rows.parent, rows.logp))

    def _add_truth(self, rows: "_Rows", truth: Sequence[int], n: int) -> None:
        up, on_side = 0, False
        for token in truth:
            if len(rows.token) + 2 > n or rows.depth[up] == rows.max_depth or self._rng.random() > self._accept:
                break
            if self._rng.random() < self._side:
                on_side = True
                self._add_decoy(rows, up, 0.6)
                up = rows.add(up, token, 0.3)
            else:
                up = rows.add(up, token, 0.9)
        self.n_side += on_side

    def _add_decoy(self, rows: "_Rows", up: int, p: float) -> None:
        if rows.depth[up] < rows.max_depth:
            rows.add(up, int(self._rng.integers(*self._decoys)), p)

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Rows:
    """A tree under construction; a child is added once."""

    def __init__(self, root: int, max_depth: int) -> None:
        self.token, self.parent, self.depth, self.logp = [root], [-1], [0], [0.0]
        self.max_depth = max_depth
        self._children: dict[tuple[int, int], int] = {}

    def add(self, up: int, token: int, p: float) -> int:
        if (up, token) not in self._children:
            self._children[up, token] = len(self.token)
            self.token.append(token)
            self.parent.append(up)
            self.depth.append(self.depth[up] + 1)
            self.logp.append(self.logp[up] + float(np.log(p)))
        return self._children[up, token]
