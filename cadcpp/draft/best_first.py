"""Best-first growth of a token tree: numbers in, decisions out, no model inside."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cadcpp.draft.node_table import NodeTable
from cadcpp.errors import ModelError
from cadcpp.sampling.next_tokens import NextTokens, softmax
from cadcpp.tree.limits import DraftBudget, GrowthOptions
from cadcpp.tree.prices import MAX_ROWS, Floats, Prices
from cadcpp.tree.token_tree import TokenTree

_CHILDREN = 8  # best children of a node that are reckoned with
_NEVER = 1e-30  # a probability whose logarithm can still be taken
Mix = Callable[[NextTokens], NextTokens]  # changes what may follow


class BestFirstGrowth:
    """Grows towards the ``max_size`` nodes of largest cumulative probability, or fewer if that pays more.

    Of all trees with n nodes these maximise the expected accepted length if the draft is calibrated
    (SpecExec, arXiv 2406.02532, section 4; OPT-Tree, arXiv 2406.17276, section 3). Each step expands the
    likeliest open nodes together: one alone where the draft is sure, up to ``width`` where several are
    about as likely, so depth and breadth follow the text.
    """

    def __init__(self, root: int, budget: DraftBudget, options: GrowthOptions, never: NDArray[np.int32]) -> None:
        """``never``, [n], are tokens not to draft."""
        one_child = replace(options, n_children=1)
        self._budget, self._options, self._never = budget, one_child if budget.n_chains == 1 else options, never
        self._nodes = NodeTable(root)
        self._n_expanded, self._most = 0, budget.max_size
        self._likeness, self._n_likeness = 0.5 ** np.arange(1.0, _CHILDREN + 1), 1.0  # sums of the best children's

    def frontier(self) -> list[int]:
        """Nodes to evaluate next, likeliest first; empty when the tree is done."""
        if self._n_expanded >= self._most:
            return []
        best = self._best()
        rows = best[self._nodes.open[best]]
        rows = rows[self._pays(rows, self._node_price(), self._options.reach)]
        if len(rows) == 0:
            return []
        near = self._nodes.logp[rows] >= self._nodes.logp[rows[0]] + _log(self._options.focus)
        return [int(r) for r in rows[near][: self._options.width]]

    def leaves(self) -> list[int]:
        """Nodes of the tree that were not evaluated, as far as children might pay that cost nothing to know."""
        best = self._best()
        rows = best[self._nodes.open[best]]
        return [int(r) for r in rows[self._pays(rows, 0.0, 1.0)]]

    def wants(self, row: int) -> bool:
        """Whether evaluating one node pays."""
        return bool(self._nodes.open[row] and self._pays(np.array([row]), self._node_price(), 1.0)[0])

    def expand(self, rows: list[int], logits: NDArray[np.float32], mix: Mix | None = None) -> None:
        """Hang the promising next tokens under ``rows``, given the draft's logits after each, [n, n_vocab].

        Raises ModelError if they are no numbers.
        """
        for row, values in zip(rows, logits, strict=True):
            if not np.isfinite(values.max()):
                raise ModelError("the draft computes what is no number: its file is damaged, or take another draft")
            following = self._next_tokens(row, values)
            self._hang(row, self._likely(following if mix is None else mix(following)))

    def learn(self, row: int, tokens: NDArray[np.int64], p: NDArray[np.float32]) -> None:
        """Hang given next tokens under a node, with their probabilities after it, [n]."""
        if self._budget.coupling is not None:
            p = self._budget.coupling.reweighted(tokens, p, self._nodes.depth[row]).astype(np.float32)
        known = np.flatnonzero((p > self._options.cutoff) & ~_among(tokens, self._never))
        best = known[np.argsort(-p[known], kind="stable")[: self._options.n_children]]
        known = best if len(best) < len(known) else known
        self._hang(row, (tokens[known], np.log(np.maximum(p[known], _NEVER))), guessed=True)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """What is learned inside is forgotten afterwards."""
        nodes, likeness, counts = self._nodes.copy(), self._likeness.copy(), (self._n_expanded, self._n_likeness)
        try:
            yield
        finally:
            self._nodes, self._likeness = nodes, likeness
            self._n_expanded, self._n_likeness = counts

    def tree(self) -> TokenTree:
        """Of the likeliest ``max_size`` nodes found as many as pay."""
        nodes, best = self._nodes, self._by_worth(self._best(_log(self._options.cutoff)))
        keep = np.sort(best[: self._budget.prices.best_rows(self._gains(best))])
        rank = {int(old): new for new, old in enumerate(keep)}
        return TokenTree.build(
            [nodes.token[i] for i in keep],
            [rank.get(nodes.parent[i], -1) for i in keep],
            nodes.logp[keep].tolist(),
            [nodes.guessed[i] for i in keep],
        )

    def position(self, row: int) -> tuple[int, int, int]:
        """Token, parent node and depth of one node."""
        return self._nodes.position(row)

    def path(self, row: int) -> list[int]:
        """The tokens from below the root down to ``row``."""
        return self._nodes.path(row)

    def child(self, row: int, token: int) -> int | None:
        """The node of ``token`` under ``row``, if there is one."""
        return self._nodes.child(row, token)

    def walk(self, path: Sequence[int]) -> list[int]:
        """Nodes along ``path`` below the root, as far as there are any."""
        return self._nodes.walk(path)

    def go_beyond(self, n: int) -> None:
        """Let up to ``n`` more nodes be evaluated, whatever they cost: what may follow the tree."""
        rows = min(self._budget.max_size + n, MAX_ROWS)
        self._budget = replace(self._budget, max_size=rows, prices=Prices())
        self._options = replace(self._options, reach=1.0)
        self._most = self._n_expanded + n

    def below(self, row: int, budget: DraftBudget) -> tuple["BestFirstGrowth", dict[int, int]]:
        """The growth that has ``row`` as its root and all that is known below it; and evaluated nodes' new numbers.

        The budget's depth must leave the evaluated nodes in.
        """
        known, children = self._nodes.known, dict[int, list[int]]()
        for node in known:
            children.setdefault(self._nodes.parent[node], []).append(self._nodes.token[node])
        new = BestFirstGrowth(self._nodes.token[row], budget, self._options, self._never)
        rank = {row: 0}
        for node in sorted(known):  # parents stand before children
            token, parent, _ = self.position(node)
            if node != row and parent in rank:
                rank[node] = new._evaluated_child(rank[parent], token)
            if node in rank:
                new._hang(rank[node], known[node], children.get(node, ()))
        new._n_expanded = 0
        return new, rank

    def _evaluated_child(self, row: int, token: int) -> int:
        child = self.child(row, token)
        assert child is not None  # `below` hangs evaluated nodes whatever their chances
        return child

    def _best(self, floor: float = -math.inf) -> NDArray[np.int64]:
        order = np.argsort(-self._nodes.logp, kind="stable")[: self._budget.max_size]
        return order[self._nodes.logp[order] >= floor]

    def _by_worth(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Nodes by what they bring beyond what they cost more than others, none before its parent.

        Of ``rows``, parents stand before their children.
        """
        if not self._nodes.surcharge[rows].any():
            return rows
        worth = dict(zip(rows.tolist(), self._gains(rows).tolist(), strict=True)) | {0: math.inf}
        for row in rows[1:].tolist():
            worth[row] = min(worth[row], worth[self._nodes.parent[row]])
        return rows[np.argsort([-worth[row] for row in rows.tolist()], kind="stable")]

    def _gains(self, rows: NDArray[np.int64]) -> Floats:
        """What nodes are expected to bring."""
        depth = np.array(self._nodes.depth)[rows]
        return self._budget.prices.gains(self._nodes.logp[rows], depth, self._nodes.surcharge[rows])

    def _gains_below(self, rows: NDArray[np.int64]) -> Floats:
        """... and would a level further down."""
        return self._budget.prices.gains(self._nodes.logp[rows], np.array(self._nodes.depth)[rows] + 1)

    def _node_price(self) -> float:
        prices = self._budget.prices
        return prices.node if self._n_expanded >= prices.free_nodes else 0.0

    def _pays(self, rows: NDArray[np.int64], node: float, reach: float) -> NDArray[np.bool_]:
        """Whether evaluating nodes pays: their children must have a chance to stay in the tree, and be worth it."""
        size, logp = self._budget.max_size, self._nodes.logp
        # A child is worth what it adds beyond the price of its row; how likely children are, other nodes' tell.
        children = self._gains_below(rows)[:, None] * (self._likeness / self._n_likeness)
        pays = np.maximum(children - self._row_price(), 0).sum(axis=1) >= node
        if len(logp) >= size:
            pays &= logp[rows] >= self._nth(size) + math.log(reach)
        return np.asarray(pays | (rows == 0))

    def _promising(self, following: NextTokens, always: Sequence[int]) -> tuple[NextTokens, Floats]:
        """Of next tokens, with cumulative log probabilities, those that may stay in the tree; and their surcharges."""
        (tokens, logp), prices, price = following, self._budget.prices, self._row_price()
        must, least = _among(tokens, always), self._least()
        few = np.flatnonzero((logp > max(least, _log(price - prices.experts))) | must)  # no row costs less
        surcharge = prices.surcharge(tokens[few])
        stays = (logp[few] > np.maximum(least, np.log(np.maximum(price + surcharge, _NEVER)))) | must[few]
        return (tokens[few[stays]], logp[few[stays]]), surcharge[stays]

    def _least(self) -> float:
        """Cumulative log probability without which no node stays in the tree, whatever it costs."""
        full = self._nth(self._budget.max_size) if len(self._nodes.logp) >= self._budget.max_size else -math.inf
        return max(_log(self._options.cutoff), full)

    def _row_price(self) -> float:
        """What a node must bring to be added to the best tree so far, or to take the place of its last row."""
        best = self._by_worth(self._best())
        prices, gains = self._budget.prices, self._gains(best)
        n = prices.best_rows(gains)
        return min(prices.next_row(n), max(float(gains[n - 1]), 0.0)) if n > 1 else prices.next_row(n)

    def _nth(self, n: int) -> float:
        """The n-th largest log probability."""
        return float(np.partition(self._nodes.logp, -n)[-n])

    def _next_tokens(self, row: int, logits: NDArray[np.float32]) -> NextTokens:
        coupling, temperature = self._budget.coupling, self._budget.temperature
        if coupling is None:
            return softmax(logits, temperature)
        return coupling.next_tokens(logits, self.path(row), temperature)

    def _likely(self, following: NextTokens) -> NextTokens:
        """Of all next tokens those that may ever be of use, here or when this node has become the root."""
        tokens, logp = following
        likely = np.flatnonzero(logp > _log(self._options.cutoff))
        likely = likely[~_among(tokens[likely], self._never)]
        n = self._options.n_children
        if len(likely) > n:
            likely = likely[np.argpartition(-logp[likely], n)[:n]]
        return tokens[likely], logp[likely]

    def _hang(self, row: int, following: NextTokens, always: Sequence[int] = (), *, guessed: bool = False) -> None:
        """Count a node as evaluated, and add those of the tokens after it that may stay in the tree."""
        nodes, (tokens, logp) = self._nodes, following
        nodes.known[row], nodes.open[row] = following, False
        self._n_expanded += 1
        self._count_children(logp)
        n_left = self._budget.max_depth - nodes.depth[row]
        if n_left < 1:
            return
        # Rounding must not lift a child above its parent: the order of rows rests on it.
        logp = np.minimum(nodes.logp[row] + logp, nodes.logp[row])
        nodes.add(row, *self._promising((tokens, logp), always), guessed=guessed, is_open=n_left > 1)

    def _count_children(self, logp: NDArray[np.float32]) -> None:
        """How likely the best children of a node are: others' will be about as likely."""
        best = np.exp(np.sort(logp)[: -_CHILDREN - 1 : -1])
        self._likeness[: len(best)] += best
        self._n_likeness += 1


def _among(tokens: NDArray[np.int64], few: Sequence[int] | NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which tokens are among a few; np.isin would load numpy.ma, in the middle of the first round."""
    return np.asarray((tokens[:, None] == np.asarray(few, np.int64)).any(axis=1))


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf
