"""Growth of a tree as LLMCad published it: branches in proportion to their confidence."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cadcpp.draft.node_table import NodeTable
from cadcpp.tree.limits import DraftBudget, GrowthOptions
from cadcpp.tree.token_tree import TokenTree

BRANCHING = 0.3  # a token this likely opens a branch of its own (section 3.1)


class BranchPacer:
    """Section 3.2: branches grow by one token at a time, in proportion to their cumulative confidence."""

    def __init__(self, root: int, budget: DraftBudget, _options: GrowthOptions, never: NDArray[np.int32]) -> None:
        self._budget, self._never, self._nodes = budget, never, NodeTable(root)
        self._spent = {0: 0}  # open branch, by its last node -> tokens it has had (T)
        self._n_steps = 0  # tokens drafted in all (M)

    def frontier(self) -> list[int]:
        """The branch whose turn it is; empty when it is time to verify."""
        nodes = self._nodes
        open_rows = [row for row in self._spent if nodes.depth[row] < self._budget.max_depth]
        if not open_rows or len(nodes) >= self._budget.max_size:
            return []
        confidence = {row: math.exp(nodes.logp[row]) for row in open_rows}
        if max(confidence.values()) < self._budget.min_confidence:
            return []
        total = sum(confidence.values())
        return [max(open_rows, key=lambda row: self._n_steps * confidence[row] / total - self._spent[row])]

    def expand(self, rows: list[int], logits: NDArray[np.float32]) -> None:
        """Extend branches by their likeliest next token, and open one for every other likely one, [n, n_vocab]."""
        for row, values in zip(rows, logits, strict=True):
            shifted = values - values.max()
            logp = shifted - math.log(float(np.exp(shifted).sum()))
            logp[self._never] = -np.inf
            best = int(np.argmax(logp))
            likely = [best, *(int(t) for t in np.flatnonzero(logp >= math.log(BRANCHING)) if t != best)]
            spent, first = self._spent.pop(row), len(self._nodes)
            self._n_steps += 1
            self._spent.update({first + i: 0 if i else spent + 1 for i in range(len(likely))})
            self._nodes.add(row, (np.array(likely), self._nodes.logp[row] + logp[likely]))

    def tree(self) -> TokenTree:
        """Everything drafted, as far as it fits."""
        nodes = self._nodes
        return TokenTree.build(nodes.token, nodes.parent, nodes.logp.tolist()).trim(self._budget.max_size)

    def position(self, row: int) -> tuple[int, int, int]:
        """Token, parent node and depth of one node."""
        return self._nodes.position(row)

    def walk(self, path: Sequence[int]) -> list[int]:
        """Nodes along ``path`` below the root, as far as there are any."""
        return self._nodes.walk(path)
