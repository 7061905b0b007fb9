"""BestFirstGrowth of a tree as LLMCad published it: branches in proportion to their confidence."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cadcpp.tree.limits import TreeConfig
from cadcpp.tree.token_tree import TokenTree

BRANCHING = 0.3  # a token this likely opens a branch of its own (section 3.1)


class BranchPacer:
    """Section 3.2: branches grow by one token at a time, in proportion to their cumulative confidence."""

    def __init__(self, root: int, config: TreeConfig, max_depth: int, never: NDArray[np.int32]) -> None:
        self._config, self._max_depth, self._never = config, max_depth, never
        self._token, self._parent, self._depth, self._logp = [root], [-1], [0], [0.0]
        self._spent = {0: 0}  # open branch, by its last node -> tokens it has had (T)
        self._n_steps = 0  # tokens drafted in all (M)

    def frontier(self) -> list[int]:
        """The branch whose turn it is; empty when it is time to verify."""
        open_rows = [row for row in self._spent if self._depth[row] < self._max_depth]
        if not open_rows or len(self._token) >= self._config.max_size:
            return []
        confidence = {row: math.exp(self._logp[row]) for row in open_rows}
        if max(confidence.values()) < (self._config.alpha or 0.0):
            return []
        total = sum(confidence.values())
        return [max(open_rows, key=lambda row: self._n_steps * confidence[row] / total - self._spent[row])]

    def expand(self, rows: list[int], logits: NDArray[np.float32]) -> None:
        """Extend branches by their likeliest next token, and open one for every other likely one."""
        for row, values in zip(rows, logits, strict=True):
            shifted = values - values.max()
            logp = shifted - math.log(float(np.exp(shifted).sum()))
            logp[self._never] = -np.inf
            best = int(np.argmax(logp))
            spent = self._spent.pop(row)
            self._n_steps += 1
            for token in [best, *(int(t) for t in np.flatnonzero(logp >= math.log(BRANCHING)) if t != best)]:
                self._spent[len(self._token)] = spent + 1 if token == best else 0
                self._add(row, token, float(logp[token]))

    def tree(self) -> TokenTree:
        """Everything drafted, as far as it fits."""
        return TokenTree.build(self._token, self._parent, self._logp).trim(self._config.max_size)

    def position(self, row: int) -> tuple[int, int, int]:
        """Token, parent node and depth of one node."""
        return self._token[row], self._parent[row], self._depth[row]

    def walk(self, path: Sequence[int]) -> list[int]:
        """Nodes along ``path`` below the root, as far as there are any."""
        found = [0]
        for token in path:
            row = next((r for r, p in enumerate(self._parent) if p == found[-1] and self._token[r] == token), None)
            if row is None:
                break
            found.append(row)
        return found[1:]

    def _add(self, parent: int, token: int, logp: float) -> None:
        self._token.append(token)
        self._parent.append(parent)
        self._depth.append(self._depth[parent] + 1)
        self._logp.append(self._logp[parent] + logp)
