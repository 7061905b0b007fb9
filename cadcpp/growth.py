"""Best-first growth of a token tree: numbers in, decisions out, no model inside."""

import math

import numpy as np
from numpy.typing import NDArray

from cadcpp.config import TreeConfig
from cadcpp.tree import TokenTree


class Growth:
    """Grows towards the ``rows`` nodes of largest cumulative probability.

    Of all trees with n nodes these maximise the expected accepted length if the draft is calibrated
    (SpecExec, arXiv 2406.02532, section 4; OPT-Tree, arXiv 2406.17276, section 3). Each step expands the
    likeliest open nodes together: one alone where the draft is sure, up to ``width`` where several are
    about as likely, so depth and breadth follow the text.
    """

    def __init__(self, root: int, config: TreeConfig, max_depth: int, never: NDArray[np.int32]) -> None:
        self._config, self._max_depth, self._never = config, max_depth, never
        self._token, self._parent, self._depth = [root], [-1], [0]
        self._logp = np.zeros(1, np.float32)
        self._open = np.array([True])
        self._n_expanded = 0

    def frontier(self) -> list[int]:
        """Nodes to evaluate next, likeliest first; empty when the tree is done."""
        if self._n_expanded >= self._config.rows:
            return []
        best = self._best()
        rows = best[self._open[best]]
        rows = rows[self._logp[rows] >= self._worth()]
        if len(rows) == 0:
            return []
        near = self._logp[rows] >= self._logp[rows[0]] + _log(self._config.focus)
        return [int(r) for r in rows[near][: self._config.width]]

    def expand(self, rows: list[int], logits: NDArray[np.float32]) -> None:
        """Hang the promising next tokens under ``rows``, given the draft's logits after each, [n, n_vocab]."""
        floor, logits = self._floor(), logits / self._config.temperature
        top = logits.max(axis=1)
        total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
        for i, row in enumerate(rows):
            shift = self._logp[row] - total[i]
            tokens = np.flatnonzero(logits[i] > floor - shift)
            self._add(row, tokens[~np.isin(tokens, self._never)], logits[i], shift)
        self._open[rows] = False
        self._n_expanded += len(rows)

    def tree(self) -> TokenTree:
        """The likeliest ``rows`` nodes found."""
        keep = np.sort(self._best(self._floor()))
        rank = {int(old): new for new, old in enumerate(keep)}
        return TokenTree.build(
            [self._token[i] for i in keep],
            [rank.get(self._parent[i], -1) for i in keep],
            self._logp[keep].tolist(),
        )

    def position(self, row: int) -> tuple[int, int, int]:
        """Token, parent node and depth of one node."""
        return self._token[row], self._parent[row], self._depth[row]

    def _best(self, floor: float = -math.inf) -> NDArray[np.int64]:
        order = np.argsort(-self._logp, kind="stable")[: self._config.rows]
        return order[self._logp[order] >= floor]

    def _worth(self) -> float:
        """Log probability from which on evaluating a node pays: its children must have a chance to stay."""
        config = self._config
        price = _log(config.node_price) if self._n_expanded >= config.free_nodes else -math.inf
        return max(self._floor() + _log(config.reach) if len(self._logp) >= config.rows else -math.inf, price)

    def _floor(self) -> float:
        """Cumulative log probability that a node must have to stay in the tree, as far as is known."""
        config = self._config
        price = min(self._rank(config.free_rows), _log(config.row_price))
        return max(_log(config.cutoff), self._rank(config.rows), price)

    def _rank(self, n: int) -> float:
        """The n-th largest log probability."""
        return float(np.partition(self._logp, -n)[-n]) if len(self._logp) >= n else -math.inf

    def _add(self, parent: int, tokens: NDArray[np.int64], logits: NDArray[np.float32], shift: float) -> None:
        depth = self._depth[parent] + 1
        if depth > self._max_depth:
            return
        if len(tokens) > self._config.rows:
            tokens = tokens[np.argpartition(-logits[tokens], self._config.rows)[: self._config.rows]]
        self._token += tokens.tolist()
        self._parent += [parent] * len(tokens)
        self._depth += [depth] * len(tokens)
        # Rounding must not lift a child above its parent: the order of rows rests on it.
        logp = np.minimum(logits[tokens] + shift, self._logp[parent])
        self._logp = np.concatenate([self._logp, logp.astype(np.float32)])
        self._open = np.concatenate([self._open, np.full(len(tokens), depth < self._max_depth)])


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf
