"""A draft model that grows token trees, and keeps what it has evaluated of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cadcpp.draft.base import DraftedTree
from cadcpp.draft.best_first import BestFirstGrowth
from cadcpp.kv.state_cache import cache_of
from cadcpp.native.context import Context
from cadcpp.tree.limits import DraftBudget, GrowthOptions
from cadcpp.tree.token_tree import TokenTree
from cadcpp.util.prefix import common_prefix

_ROUND = 32  # new tokens at most that a round may have brought


class Growth(Protocol):
    """A tree that grows: which nodes to evaluate next, and what came of it. Numbers only."""

    def frontier(self) -> list[int]: ...

    def expand(self, rows: list[int], logits: NDArray[np.float32]) -> None: ...

    def tree(self) -> TokenTree: ...

    def position(self, row: int) -> tuple[int, int, int]: ...

    def walk(self, path: Sequence[int]) -> list[int]: ...


StartGrowth = Callable[[int, DraftBudget, GrowthOptions, NDArray[np.int32]], Growth]  # root, ..., tokens not to draft


class ModelDrafter:
    """Grows a tree with a small resident model.

    A tree cannot be grown with one KV sequence per leaf, since the leaves are not known yet. Instead the
    first evaluated child of a node goes on in its parent's sequence and every further one in a fork of it.
    Of a model with recurrent states every child goes on in a copy of its parent's, if there is memory for several.
    When a part of the last tree, or of what was drafted below it, has become text, growth goes on from there.
    """

    def __init__(
        self,
        context: Context,
        never: Sequence[int] = (),
        *,
        start_growth: StartGrowth = BestFirstGrowth,
        options: GrowthOptions | None = None,
    ) -> None:
        self.context = context
        # A verifier may have special tokens that the draft lacks; any other in their place costs a guess at most.
        context.batch.clip_tokens(context.model.n_vocab - 1)
        self.cache = cache_of(context)
        self.n_decodes = 0
        self._n_evaluated = self._n_kept = 0  # for the tree that grows
        self._start_growth, self._options = start_growth, options or GrowthOptions()
        self._never = np.array(never, np.int32)  # tokens not to draft
        self._text: list[int] = []
        self._growth: Growth | None = None  # below the text
        self._seqs: dict[int, int] = {}  # evaluated node -> the sequence that holds its cell
        self._ends: dict[int, int] = {}  # sequence -> the node it ends at: only one child may go on in it

    def behind(self, ids: Sequence[int]) -> int:
        return len(ids) - common_prefix(self.cache.tokens, list(ids))

    def read(self, ids: Sequence[int], n_behind: int) -> int:
        if n_behind <= _ROUND or len(ids) >= self._n_cells:
            return 0
        self.rollback()
        self.cache.align(ids)
        n_before = len(self.cache)
        self.cache.prefill(ids, len(ids) - 1)
        return len(self.cache) - n_before

    def grow(self, ids: Sequence[int], budget: DraftBudget) -> DraftedTree:
        self._n_evaluated = self._n_kept = 0
        budget = budget.up_to(self._n_cells - len(ids) - self._options.width)
        if self._is_chain:
            budget = replace(budget, n_chains=1)
        if budget.max_depth < 1 or budget.max_size < 2:
            return DraftedTree(tree=TokenTree.root(ids[-1]))
        growth = self._go_on(ids, budget) or self._start(ids, budget)
        self._branch(growth, lambda: True)
        return DraftedTree(tree=self._tree(growth), n_evaluated=self._n_evaluated, n_kept=self._n_kept)

    def ahead(self, may_go_on: Callable[[], bool], n: int) -> None:
        """Evaluate up to ``n`` more nodes, the likeliest next text first, as long as ``may_go_on()``.

        For while the verifier is busy: on one core, since a second team of OpenMP threads beside the
        verifier's would make both of them slow (with more threads than cores none of them spins).
        """
        if not isinstance(self._growth, BestFirstGrowth) or self._is_chain:
            return
        self._growth.go_beyond(n)
        with self.context.single_threaded():
            self._branch(self._growth, may_go_on)

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
    def _is_chain(self) -> bool:
        """Whether the model has a state, and memory for one alone, which is at the end of a chain."""
        return self.context.shape.states is not None and self.context.shape.n_seq == 1

    @property
    def _copies(self) -> bool:
        """Whether a node goes on in a copy of its parent's state, which others may go on from as well."""
        return self.context.shape.states is not None and not self._is_chain

    @property
    def _n_cells(self) -> int:
        return min(self.context.shape.n_cells, self.context.model.n_ctx_train)  # beyond, drafts are noise

    def _go_on(self, ids: Sequence[int], budget: DraftBudget) -> BestFirstGrowth | None:
        """The growth below the new text, if the last one got so far; what is evaluated is kept in any case."""
        growth, path = self._growth, list(ids[len(self._text) :])
        if growth is None or not path or list(ids[: len(self._text)]) != self._text:
            self.rollback()
            return None
        rows = [row for row in growth.walk(path) if row in self._seqs]
        if len(rows) < len(path) or not isinstance(growth, BestFirstGrowth) or self._is_chain:
            if rows:
                self.cache.adopt(self._seqs[rows[-1]], path[: len(rows)])
            self.rollback()
            return None
        return self._reroot(growth, rows[-1], ids, budget)

    def _reroot(self, growth: BestFirstGrowth, row: int, ids: Sequence[int], budget: DraftBudget) -> BestFirstGrowth:
        below, rank = growth.below(row, budget)
        ends = {seq: rank[end] for seq, end in self._ends.items() if end in rank and end != row}
        self.cache.adopt(self._seqs[row], ids[len(self._text) :], ends.keys())
        self._ends = {0: 0} | ends
        self._renumber(rank)
        self._text, self._growth, self._n_kept = list(ids), below, len(self._seqs)
        return below

    def _renumber(self, rank: dict[int, int]) -> None:
        """Take over new numbers of evaluated nodes; those that have none are gone."""
        self._seqs = {rank[node]: seq for node, seq in self._seqs.items() if node in rank} | {0: 0}

    def _start(self, ids: Sequence[int], budget: DraftBudget) -> Growth:
        self.cache.prefill_whole(ids)
        growth = self._start_growth(ids[-1], budget, self._options, self._never)
        self._text, self._growth, self._seqs, self._ends = list(ids), growth, {0: 0}, {0: 0}
        tail = ids[len(self.cache) :]
        self.cache.share(1)
        self.context.batch.clear()
        self.context.batch.add(list(tail), len(self.cache), 0, 1, np.arange(len(tail)) == len(tail) - 1)
        self._evaluate(growth, [0])
        self.cache.extend(tail)
        return growth

    def _branch(self, growth: Growth, may_go_on: Callable[[], bool]) -> None:
        while may_go_on():
            rows = self._next_rows(growth)
            if not rows:
                return
            self.cache.share(1, 1)
            self.context.batch.clear()
            for row in rows:
                self._add(growth, row)
            self._evaluate(growth, rows)

    def _next_rows(self, growth: Growth) -> list[int]:
        """Of the nodes to evaluate those that there is room for, and a state."""
        n_free = self._n_cells - len(self._text) - len(self._seqs)
        if self._is_chain:
            return [row for row in growth.frontier()[: min(n_free, 1)] if growth.position(row)[1] == self._ends[0]]
        return growth.frontier()[: max(min(self.context.shape.n_seq - len(self._ends), n_free), 0)]

    def _evaluate(self, growth: Growth, rows: list[int]) -> None:
        """What may follow ``rows``, whose cells and nothing else that asks for logits are in the batch."""
        self._decode()
        growth.expand(rows, self.context.logits(len(rows)))
        self._n_evaluated += len(rows)

    def _tree(self, growth: Growth) -> TokenTree:
        return growth.tree()

    def _add(self, growth: Growth, row: int) -> None:
        token, parent, depth = growth.position(row)
        position = len(self._text) + depth - 1
        seq = self._seqs[parent]
        if self._ends[seq] != parent or self._copies:
            source, seq = seq, next(s for s in range(self.context.shape.n_seq) if s not in self._ends)
            self.cache.branch(source, seq, position)
        self._ends[seq] = row
        self._seqs[row] = seq
        self.context.batch.add([token], position, seq, seq + 1, True)

    def _decode(self) -> None:
        self.context.decode()
        self.n_decodes += 1
