"""Drafters: what might come next, as a token tree."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cadcpp.draft.best_first import BestFirstGrowth
from cadcpp.draft.branch_pacer import BranchPacer
from cadcpp.kv.cache import Cache
from cadcpp.native.context import Context
from cadcpp.tree.limits import TreeConfig
from cadcpp.tree.token_tree import TokenTree
from cadcpp.util.prefix import common_prefix

_ROUND = 32  # new tokens at most that a round may have brought


class ModelDrafter:
    """Grows a tree with a small resident model.

    A tree cannot be grown with one KV sequence per leaf, since the leaves are not known yet. Instead the
    first evaluated child of a node goes on in its parent's sequence and every further one in a fork of it.
    When a part of the last tree, or of what was drafted below it, has become text, growth goes on from there.
    """

    growth: type[BestFirstGrowth] = BestFirstGrowth

    def __init__(self, context: Context, never: Sequence[int] = ()) -> None:
        self.context = context
        # A verifier may have special tokens that the draft lacks; any other in their place costs a guess at most.
        context.batch.last_token = context.model.n_vocab - 1
        self.cache = Cache(context)
        self.n_decodes = self.n_evaluated = self.n_kept = 0
        self._never = np.array(never, np.int32)  # tokens not to draft
        self._text: list[int] = []
        self._growth: BestFirstGrowth | BranchPacer | None = None  # below the text
        self._seqs: dict[int, int] = {}  # evaluated node -> the sequence that holds its cell
        self._ends: dict[int, int] = {}  # sequence -> the node it ends at: only one child may go on in it

    def read(self, ids: Sequence[int]) -> None:
        n_new = len(ids) - common_prefix(self.cache.tokens, list(ids))
        if n_new > _ROUND and len(ids) < self._n_cells:
            self.rollback()
            self.cache.align(ids)
            self.cache.prefill(ids, len(ids) - 1)

    def grow(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> TokenTree:
        self.n_evaluated = self.n_kept = 0
        config = replace(config, max_size=max(min(config.max_size, self._n_cells - len(ids) - config.width), 1))
        if max_depth < 1 or config.max_size < 2:
            return TokenTree.root(ids[-1])
        growth = self._go_on(ids, config, max_depth) or self._start(ids, config, max_depth)
        self._branch(growth, lambda: True)
        return self._tree(growth)

    def ahead(self, may_go_on: Callable[[], bool], n: int) -> None:
        """Evaluate up to ``n`` more nodes, the likeliest next text first, as long as ``may_go_on()``.

        For while the verifier is busy: on one core, since a second team of OpenMP threads beside the
        verifier's would make both of them slow (with more threads than cores none of them spins).
        """
        if not isinstance(self._growth, BestFirstGrowth):
            return
        self._growth.go_beyond(n)
        self.context.use_threads(1)
        try:
            self._branch(self._growth, may_go_on)
        finally:
            self.context.use_threads(self.context.config.n_threads)

    def rollback(self) -> None:
        self._growth, self._seqs, self._ends = None, {}, {}
        self.cache.rollback()

    def stop(self) -> None:
        self.context.stop()

    def resume(self) -> None:
        self.context.resume()

    def close(self) -> None:
        self.context.close()

    @property
    def _n_cells(self) -> int:
        return min(self.context.config.n_cells, self.context.model.n_ctx_train)  # beyond, drafts are noise

    def _go_on(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> BestFirstGrowth | None:
        """The growth below the new text, if the last one got so far; what is evaluated is kept in any case."""
        growth, path = self._growth, list(ids[len(self._text) :])
        if growth is None or not path or list(ids[: len(self._text)]) != self._text:
            self.rollback()
            return None
        rows = [row for row in growth.walk(path) if row in self._seqs]
        if len(rows) < len(path) or isinstance(growth, BranchPacer):
            if rows:
                self.cache.adopt(self._seqs[rows[-1]], path[: len(rows)])
            self.rollback()
            return None
        return self._reroot(growth, rows[-1], ids, config, max_depth)

    def _reroot(
        self, growth: BestFirstGrowth, row: int, ids: Sequence[int], config: TreeConfig, max_depth: int
    ) -> BestFirstGrowth:
        below, rank = growth.below(row, config, max_depth)
        ends = {seq: rank[end] for seq, end in self._ends.items() if end in rank and end != row}
        self.cache.adopt(self._seqs[row], ids[len(self._text) :], ends.keys())
        self._ends = {0: 0} | ends
        self._renumber(rank)
        self._text, self._growth, self.n_kept = list(ids), below, len(self._seqs)
        return below

    def _renumber(self, rank: dict[int, int]) -> None:
        """Take over new numbers of evaluated nodes; those that have none are gone."""
        self._seqs = {rank[node]: seq for node, seq in self._seqs.items() if node in rank} | {0: 0}

    def _start(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> BestFirstGrowth | BranchPacer:
        self.cache.prefill_whole(ids)
        growth = (self.growth if config.alpha is None else BranchPacer)(ids[-1], config, max_depth, self._never)
        self._text, self._growth, self._seqs, self._ends = list(ids), growth, {0: 0}, {0: 0}
        tail = ids[len(self.cache) :]
        self.context.batch.clear()
        self.context.batch.add(list(tail), len(self.cache), 0, 1, np.arange(len(tail)) == len(tail) - 1)
        self._evaluate(growth, [0])
        self.cache.extend(tail)
        return growth

    def _branch(self, growth: BestFirstGrowth | BranchPacer, may_go_on: Callable[[], bool]) -> None:
        while may_go_on():
            room = min(self.context.config.n_seq - len(self._ends), self._n_cells - len(self._text) - len(self._seqs))
            rows = growth.frontier()[: max(room, 0)]
            if not rows:
                return
            self.context.batch.clear()
            for row in rows:
                self._add(growth, row)
            self._evaluate(growth, rows)

    def _evaluate(self, growth: BestFirstGrowth | BranchPacer, rows: list[int]) -> None:
        """What may follow ``rows``, whose cells and nothing else that asks for logits are in the batch."""
        self._decode()
        growth.expand(rows, self.context.logits(len(rows)))
        self.n_evaluated += len(rows)

    def _tree(self, growth: BestFirstGrowth | BranchPacer) -> TokenTree:
        return growth.tree()

    def _add(self, growth: BestFirstGrowth | BranchPacer, row: int) -> None:
        token, parent, depth = growth.position(row)
        position = len(self._text) + depth - 1
        seq = self._seqs[parent]
        if self._ends[seq] != parent:
            source, seq = seq, next(s for s in range(self.context.config.n_seq) if s not in self._ends)
            self.cache.branch(source, seq, position)
        self._ends[seq] = row
        self._seqs[row] = seq
        self.context.batch.add([token], position, seq, seq + 1, True)

    def _decode(self) -> None:
        self.context.decode()
        self.n_decodes += 1
