"""The verifier: one target pass over a whole tree, then the accept walk."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from cadcpp.kv.state_cache import cache_of
from cadcpp.native.context import Context
from cadcpp.native.layer_reports import OnLayer
from cadcpp.native.sampler import Draw
from cadcpp.telemetry.progress import Progress, within
from cadcpp.tree.chains import Chains
from cadcpp.tree.limits import DraftBudget
from cadcpp.tree.prices import FIRST_ROWS, TEXT_ROWS
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import Accepted
from cadcpp.verify.text_state import TextState

OnLogits = Callable[[int, NDArray[np.float32]], None]  # position of the first row, and the rows [n, n_vocab]
# rows of a pass, KV cells, outputs -> a context, if there is memory for one
Widen = Callable[[int, int, int], AbstractContextManager[Context | None]]


def in_order(rows: Sequence[int]) -> int:
    """How many leading rows of an accepted path lie in position order in the KV cache.

    These are the rows of the likeliest chain, which stands first in the batch. A side branch lies behind
    a gap that later text would fill, and attention would then sum in another order than plain decoding
    does; so a side branch is evaluated again at the front of the next pass, which costs rows but no pass.
    """
    return next((i for i, row in enumerate(rows) if row != i), len(rows))


class Verifier:
    """Checks token trees with the large model."""

    def __init__(self, context: Context, widen: Widen | None = None) -> None:
        """With ``widen`` texts that do not fit into a pass are read in a context that it gives."""
        self.context = context
        self.cache = cache_of(context)
        self.widened = False
        self._widen = widen
        self._n_seq = 1  # sequences that the last pass used

    def begin(self, text: TextState) -> None:
        """A round begins: of the cache keep what the text begins with."""
        self.cache.align(text.ids)
        if not text.n_committed:
            self.cache.mark()
        text.n_committed = len(self.cache)

    @contextmanager
    def wide_enough(self, text: TextState, rows: int) -> Iterator[None]:
        """Inside, a text too long for one pass has a context that takes more of it at once.

        Where memory is short a pass costs a read of the weights, so one pass in a wide, short-lived context
        is worth the copies of the cache that it takes. Nothing changes where the text fits, where there is no memory
        for it, or if it fails.
        Passes of up to ``rows`` may have memory, those of a text with a small tree at least; in a wide context trees
        may have as many.
        """
        if self._widen is None or text.n_uncached <= max(rows - FIRST_ROWS, TEXT_ROWS):
            yield
            return
        with self._widen(text.n_uncached + rows, len(text.ids) + rows, rows) as wide:
            if wide is None:
                yield
                return
            with self._moved_to(wide):
                yield

    @contextmanager
    def _moved_to(self, wide: Context) -> Iterator[None]:
        """Inside, ``wide`` has the cache's text; what it adds to it comes back, unless something fails."""
        narrow_context, narrow = self.context, self.cache
        try:
            self.context, self.cache, self.widened = wide, cache_of(wide), True
            narrow.copy_to(self.cache)
            yield
            self.cache.copy_to(narrow)
        finally:
            self.context, self.cache, self.widened = narrow_context, narrow, False

    def prefill(self, text: TextState, progress: Progress | None = None) -> None:
        """Evaluate whole batches of a new text; the rest of it rides along with the first tree."""
        self.cache.prefill_whole(text.ids, progress)
        text.n_committed = len(self.cache)

    def read(self, ids: Sequence[int], on_logits: OnLogits | None = None) -> None:
        """Evaluate a text to its end: the context then has the logits of its last token, as its last row.

        ``on_logits`` is given those of all tokens that were not in the cache, as far as there were any.
        """
        context, batch = self.context, self.context.batch
        self.cache.align(ids)
        step = context.shape.step(min(context.shape.n_batch, context.shape.n_outputs) if on_logits else None)
        stop = len(self.cache)
        while stop < len(ids):
            chunk = list(ids[stop : stop + step])
            stop += len(chunk)
            self.cache.share(1)
            batch.clear()
            batch.add(chunk, len(self.cache), 0, 1, np.arange(len(chunk)) >= (0 if on_logits else len(chunk) - 1))
            context.decode()
            if on_logits is not None:
                on_logits(len(self.cache), context.logits(len(chunk)))
            self.cache.extend(chunk)

    def room(self, text: TextState) -> int:
        """Nodes that a tree may have in the next pass, its root included; at the context's end there are few."""
        config = self.context.shape
        if self.carries and text.n_uncached > TEXT_ROWS:
            return 1
        n_rows = min(config.n_batch, config.n_cells - text.n_committed)
        n_leaves = n_rows if config.states else config.n_seq  # all but the root may be leaves; chains are picked later
        return min(n_rows - text.n_uncached + 1, config.n_outputs, n_leaves + 1)

    def reach(self, text: TextState) -> int:
        """Levels of a tree that can all be wrong without that text has to be evaluated again."""
        n, shape = text.n_uncached, self.context.shape
        if shape.states is None or self.context.n_snapshots == 0:
            return shape.n_cells
        depths = range(self.context.n_snapshots, 0, -1)
        return next((d for d in depths if shape.granularity.whole(n + d) - n <= depths[0]), 1)

    @property
    def carries(self) -> bool:
        """Whether text is evaluated again after each pass that is not text as a whole."""
        return self.context.shape.states is not None and self.context.n_snapshots == 0

    @property
    def n_chains(self) -> int | None:
        """Chains that a tree may be, at most; None: it may have any shape."""
        return self.context.shape.n_seq if self.context.shape.states else None

    def fit(self, text: TextState, tree: TokenTree, budget: DraftBudget) -> TokenTree:
        """Of a tree that was drafted as much as a pass can check."""
        return tree if self.n_chains is None else self._chains(text).best(tree, budget.prices, budget.max_size)

    def n_rows(self, text: TextState, tree: TokenTree) -> int:
        """Of a pass, without those that it is filled up with."""
        if self.n_chains is None:
            return text.n_uncached - 1 + len(tree)
        return len(tree.leaves()) * (text.n_uncached + int(tree.depth.max()))

    def _chains(self, text: TextState) -> Chains:
        return self.context.shape.chains(text.n_uncached, self.context.n_snapshots)

    def evaluate(
        self, text: TextState, tree: TokenTree, draw: Draw, progress: Progress | None = None
    ) -> Callable[[int], int]:
        """One pass over the text's uncached tokens and the tree; gives what draws the token after a row of it.

        The round must have begun with `begin`.
        """
        context, n = self.context, text.n_uncached
        on_layer = within(progress, text.n_committed, n, len(text.ids))
        at = (self._decode if self.n_chains is None else self._decode_chains)(text, tree, on_layer)
        return lambda row: draw(context, at[row])

    def commit(self, text: TextState, tree: TokenTree, accepted: Accepted) -> None:
        """Make text of what was accepted, and keep of what `evaluate` left in the cache as much as lies in order."""
        rows, winner = accepted.rows, 0
        if self.n_chains is None:
            rows = rows[: in_order(rows)]
        else:
            winner = int(tree.spans()[0][rows[-1]])
        self.cache.commit(text.uncached, tree.token[rows[1:]].tolist(), self._n_seq, winner)
        text.ids += accepted.tokens(tree)

    def _decode(self, text: TextState, tree: TokenTree, on_layer: OnLayer | None) -> Sequence[int]:
        """One pass, in which a node belongs to the sequences of all leaves below it; gives the rows of nodes, [n]."""
        (lo, hi), uncached = tree.spans(), text.uncached
        n_seq, start, batch = int(hi[0]), len(self.cache), self.context.batch
        n_rows = len(uncached) - 1 + len(tree)
        self.cache.share(n_seq, self.context.shape.granularity.whole(n_rows) - len(uncached))
        batch.clear()
        if len(uncached) > 1:
            batch.add(uncached[:-1], start, 0, n_seq, False)
        batch.add(tree.token, start + len(uncached) - 1 + tree.depth, lo, hi, True)
        self._n_seq = n_seq
        self.context.decode(on_layer)
        return range(len(uncached) - 1, n_rows)

    def _decode_chains(self, text: TextState, tree: TokenTree, on_layer: OnLayer | None) -> Sequence[int]:
        """One pass, in which every leaf has a sequence that begins with the text; gives the rows of nodes, [n]."""
        lo, leaves, batch = tree.spans()[0], tree.leaves(), self.context.batch
        start, n, at = len(self.cache), text.n_uncached, np.zeros(len(tree), np.int_)
        length = self._chains(text).length(len(leaves), int(tree.depth.max()))
        self.cache.share(len(leaves), length - n)
        batch.clear()
        for seq, leaf in enumerate(leaves):
            path = np.array(tree.ancestors(leaf))
            is_first = lo[path] == seq  # logits of what several have are the same
            at[path[is_first]] = batch.n + n - 1 + np.flatnonzero(is_first)
            batch.add(text.uncached[:-1], start, seq, seq + 1, False)
            batch.add(tree.token[path], start + n - 1, seq, seq + 1, is_first)
        self._n_seq = len(leaves)
        self.context.decode(on_layer)
        return at.tolist()

    def rollback(self) -> None:
        self.cache.rollback()

    def stop(self) -> None:
        """End the pass that is under way, from another thread, with Stopped."""
        self.context.stop()

    def resume(self) -> None:
        self.context.resume()

    def close(self) -> None:
        self.context.close()
