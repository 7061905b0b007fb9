"""Growth of a tree as LLMCad published it: branches in proportion to their confidence."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cadcpp.draft.node_table import NodeTable
from cadcpp.sampling.next_tokens import NextTokens, softmax
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
            tokens, logp = self._likely(row, values)
            spent, first = self._spent.pop(row), len(self._nodes)
            self._n_steps += 1
            self._spent.update({first + i: 0 if i else spent + 1 for i in range(len(tokens))})
            self._nodes.add(row, (tokens, self._nodes.logp[row] + logp))

    def _likely(self, row: int, logits: NDArray[np.float32]) -> NextTokens:
        """The likeliest next token, and every other likely one."""
        coupling, spread = self._budget.coupling, self._budget.temperature
        tokens, logp = coupling.next_tokens(logits, self._nodes.path(row), spread) if coupling else softmax(logits, 1.0)
        order = np.argsort(-logp, kind="stable")[: len(self._never) + 1 + int(1 / BRANCHING)]
        allowed = order[~(tokens[order][:, None] == self._never).any(axis=1)]
        n = max(int((logp[allowed] >= math.log(BRANCHING)).sum()), 1)
        return tokens[allowed[:n]], logp[allowed[:n]]

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
