"""Best-first growth of a token tree: numbers in, decisions out, no model inside."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cadcpp.errors import ModelError
from cadcpp.tree.limits import TreeConfig
from cadcpp.tree.prices import MAX_ROWS, Prices
from cadcpp.tree.token_tree import TokenTree

_CHILDREN = 8  # best children of a node that are reckoned with
_NEVER = 1e-30  # a probability whose logarithm can still be taken
_Next = tuple[NDArray[np.int64], NDArray[np.float32]]  # tokens, and their log probabilities
Mix = Callable[[NDArray[np.float32]], None]  # changes log probabilities, [n_vocab]


class BestFirstGrowth:
    """Grows towards the ``rows`` nodes of largest cumulative probability, or fewer if that pays more.

    Of all trees with n nodes these maximise the expected accepted length if the draft is calibrated
    (SpecExec, arXiv 2406.02532, section 4; OPT-Tree, arXiv 2406.17276, section 3). Each step expands the
    likeliest open nodes together: one alone where the draft is sure, up to ``width`` where several are
    about as likely, so depth and breadth follow the text.
    """

    def __init__(self, root: int, config: TreeConfig, max_depth: int, never: NDArray[np.int32]) -> None:
        self._config, self._max_depth, self._never = config, max_depth, never
        self._token, self._parent, self._depth = [root], [-1], [0]
        self._logp = np.zeros(1, np.float32)
        self._open, self._guessed = np.array([True]), [False]
        self._child: dict[tuple[int, int], int] = {}  # node and the token after it -> its row
        self._known: dict[int, _Next] = {}  # what may follow evaluated nodes
        self._n_expanded, self._most = 0, config.max_size
        self._likeness, self._n_likeness = 0.5 ** np.arange(1.0, _CHILDREN + 1), 1.0  # sums of the best children's

    def frontier(self) -> list[int]:
        """Nodes to evaluate next, likeliest first; empty when the tree is done."""
        if self._n_expanded >= self._most:
            return []
        best = self._best()
        rows = best[self._open[best]]
        rows = rows[self._pays(rows, self._node_price(), self._config.reach)]
        if len(rows) == 0:
            return []
        near = self._logp[rows] >= self._logp[rows[0]] + _log(self._config.focus)
        return [int(r) for r in rows[near][: self._config.width]]

    def leaves(self) -> list[int]:
        """Nodes of the tree that were not evaluated, as far as children might pay that cost nothing to know."""
        best = self._best()
        rows = best[self._open[best]]
        return [int(r) for r in rows[self._pays(rows, 0.0, 1.0)]]

    def wants(self, row: int) -> bool:
        """Whether evaluating one node pays."""
        return bool(self._open[row] and self._pays(np.array([row]), self._node_price(), 1.0)[0])

    def expand(self, rows: list[int], logits: NDArray[np.float32], mix: Mix | None = None) -> None:
        """Hang the promising next tokens under ``rows``, given the draft's logits after each, [n, n_vocab].

        Raises ModelError if they are no numbers.
        """
        logits = logits / self._config.temperature
        top = logits.max(axis=1)
        if not np.isfinite(top).all():
            raise ModelError("the draft computes what is no number: its file is damaged, or take another draft")
        total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
        for i, row in enumerate(rows):
            logp = logits[i] - total[i]
            if mix is not None:
                mix(logp)
            self._hang(row, self._likely(logp))
            self._guessed += [False] * (len(self._token) - len(self._guessed))

    def learn(self, row: int, tokens: NDArray[np.int64], p: NDArray[np.float32]) -> None:
        """Hang given next tokens under a node, with their probabilities after it, [n]."""
        known = (p > self._config.cutoff) & ~_among(tokens, self._never)
        self._hang(row, (tokens[known], np.log(np.maximum(p[known], _NEVER))))
        self._guessed += [True] * (len(self._token) - len(self._guessed))

    @contextmanager
    def trial(self) -> Iterator[None]:
        """What is learned inside is forgotten afterwards."""
        names = ("_token", "_parent", "_depth", "_logp", "_open", "_guessed", "_child", "_known", "_likeness")
        saved = {name: getattr(self, name).copy() for name in names}
        n_expanded, n_likeness = self._n_expanded, self._n_likeness
        try:
            yield
        finally:
            for name, value in saved.items():
                setattr(self, name, value)
            self._n_expanded, self._n_likeness = n_expanded, n_likeness

    def tree(self) -> TokenTree:
        """Of the likeliest ``rows`` nodes found as many as pay."""
        best = self._best(_log(self._config.cutoff))
        keep = np.sort(best[: self._config.prices.best_rows(self._gains(best))])
        rank = {int(old): new for new, old in enumerate(keep)}
        return TokenTree.build(
            [self._token[i] for i in keep],
            [rank.get(self._parent[i], -1) for i in keep],
            self._logp[keep].tolist(),
            [self._guessed[i] for i in keep],
        )

    def position(self, row: int) -> tuple[int, int, int]:
        """Token, parent node and depth of one node."""
        return self._token[row], self._parent[row], self._depth[row]

    def path(self, row: int) -> list[int]:
        """The tokens from below the root down to ``row``."""
        tokens = list[int]()
        while row:
            tokens.append(self._token[row])
            row = self._parent[row]
        return tokens[::-1]

    def child(self, row: int, token: int) -> int | None:
        """The node of ``token`` under ``row``, if there is one."""
        return self._child.get((row, token))

    def go_beyond(self, n: int) -> None:
        """Let up to ``n`` more nodes be evaluated, whatever they cost: what may follow the tree."""
        rows = min(self._config.max_size + n, MAX_ROWS)
        self._config = replace(self._config, max_size=rows, reach=1.0, prices=Prices())
        self._most = self._n_expanded + n

    def walk(self, path: Sequence[int]) -> list[int]:
        """Nodes along ``path`` below the root, as far as there are any."""
        found = [0]
        for token in path:
            if (row := self._child.get((found[-1], token))) is None:
                break
            found.append(row)
        return found[1:]

    def below(self, row: int, config: TreeConfig, max_depth: int) -> tuple["BestFirstGrowth", dict[int, int]]:
        """The growth that has ``row`` as its root and all that is known below it; and evaluated nodes' new numbers.

        ``max_depth`` must leave the evaluated nodes in.
        """
        children: dict[int, list[int]] = {node: [] for node in self._known}
        for node in self._known:
            if node:
                children[self._parent[node]].append(self._token[node])
        new, rank = type(self)(self._token[row], config, max_depth, self._never), {row: 0}
        for node in sorted(self._known):  # parents stand before children
            if node != row and self._parent[node] in rank:
                rank[node] = new._child[rank[self._parent[node]], self._token[node]]
            if node in rank:
                new._hang(rank[node], self._known[node], children[node])
        new._n_expanded, new._guessed = 0, [False] * len(new._token)
        return new, rank

    def _best(self, floor: float = -math.inf) -> NDArray[np.int64]:
        order = np.argsort(-self._logp, kind="stable")[: self._config.max_size]
        return order[self._logp[order] >= floor]

    def _gains(self, rows: NDArray[np.int64], below: int = 0) -> NDArray[np.float64]:
        """What nodes are expected to bring, or would so many levels further down."""
        return self._config.prices.gains(self._logp[rows], np.array(self._depth)[rows] + below)

    def _node_price(self) -> float:
        prices = self._config.prices
        return prices.node if self._n_expanded >= prices.free_nodes else 0.0

    def _pays(self, rows: NDArray[np.int64], node: float, reach: float) -> NDArray[np.bool_]:
        """Whether evaluating nodes pays: their children must have a chance to stay in the tree, and be worth it."""
        config = self._config
        # A child is worth what it adds beyond the price of its row; how likely children are, other nodes' tell.
        children = self._gains(rows, 1)[:, None] * (self._likeness / self._n_likeness)
        pays = np.maximum(children - self._row_price(), 0).sum(axis=1) >= node
        if len(self._logp) >= config.max_size:
            pays &= self._logp[rows] >= self._nth(config.max_size) + math.log(reach)
        return np.asarray(pays | (rows == 0))

    def _floor(self) -> float:
        """Cumulative log probability that a node must have to stay in the tree, as far as is known."""
        full = self._nth(self._config.max_size) if len(self._logp) >= self._config.max_size else -math.inf
        return max(_log(self._config.cutoff), full, _log(self._row_price()))

    def _row_price(self) -> float:
        """What a node must bring to be added to the best tree so far, or to take the place of its last row."""
        prices, gains = self._config.prices, self._gains(self._best())
        n = prices.best_rows(gains)
        return min(prices.next_row(n), float(gains[n - 1])) if n > 1 else prices.next_row(n)

    def _nth(self, n: int) -> float:
        """The n-th largest log probability."""
        return float(np.partition(self._logp, -n)[-n])

    def _likely(self, logp: NDArray[np.float32]) -> _Next:
        """Of all next tokens those that may ever be of use, here or when this node has become the root."""
        tokens = np.flatnonzero(logp > _log(self._config.cutoff))
        tokens = tokens[~_among(tokens, self._never)]
        if len(tokens) > MAX_ROWS:
            tokens = tokens[np.argpartition(-logp[tokens], MAX_ROWS)[:MAX_ROWS]]
        return tokens, logp[tokens]

    def _hang(self, row: int, following: _Next, always: Sequence[int] = ()) -> None:
        """Count a node as evaluated, and add those of the tokens after it that may stay in the tree."""
        self._known[row] = following
        best = np.exp(np.sort(following[1])[: -_CHILDREN - 1 : -1])
        self._likeness[: len(best)] += best
        self._n_likeness += 1
        self._open[row] = False
        self._n_expanded += 1
        depth = self._depth[row] + 1
        if depth > self._max_depth:
            return
        tokens, logp = following
        # Rounding must not lift a child above its parent: the order of rows rests on it.
        logp = np.minimum(self._logp[row] + logp, self._logp[row])
        stays = (logp > self._floor()) | _among(tokens, always)
        tokens, logp = tokens[stays], logp[stays]
        first = len(self._token)
        self._token += tokens.tolist()
        self._child.update(((row, token), first + i) for i, token in enumerate(self._token[first:]))
        self._parent += [row] * len(tokens)
        self._depth += [depth] * len(tokens)
        self._logp = np.concatenate([self._logp, logp.astype(np.float32)])
        self._open = np.concatenate([self._open, np.full(len(tokens), depth < self._max_depth)])


def _among(tokens: NDArray[np.int64], few: Sequence[int] | NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which tokens are among a few; np.isin would load numpy.ma, in the middle of the first round."""
    return np.asarray((tokens[:, None] == np.asarray(few, np.int64)).any(axis=1))


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf
