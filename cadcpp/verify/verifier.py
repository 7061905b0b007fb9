"""The verifier: one target pass over a whole tree, then the accept walk."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from cadcpp.kv.cache import Cache
from cadcpp.native.context import Context, OnLayer
from cadcpp.native.sampler import Draw
from cadcpp.telemetry.progress import Progress, within
from cadcpp.tree.prices import FIRST_ROWS, TEXT_ROWS
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import Accepted
from cadcpp.verify.text_state import TextState

OnLogits = Callable[[int, NDArray[np.float32]], None]  # position of the first row, and the rows [n, n_vocab]
Widen = Callable[[int, int, int], AbstractContextManager[Context]]  # rows of a pass, KV cells, outputs -> a context


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
        self.cache = Cache(context)
        self.widened = False
        self._widen = widen
        self._n_seq = 1  # sequences that the last pass used

    def begin(self, text: TextState) -> None:
        """A round begins: of the cache keep what the text begins with."""
        self.cache.align(text.ids)
        text.n_committed = len(self.cache)

    @contextmanager
    def wide_enough(self, text: TextState, rows: int) -> Iterator[None]:
        """Inside, a text too long for one pass has a context that takes more of it at once.

        Where memory is short a pass costs a read of the weights, so one pass in a wide, short-lived context
        is worth the copies of the cache that it takes. Nothing changes where the text fits, or if it fails.
        Passes of up to ``rows`` may have memory, those of a text with a small tree at least; in a wide context trees
        may have as many.
        """
        if self._widen is None or text.n_uncached <= max(rows - FIRST_ROWS, TEXT_ROWS):
            yield
            return
        narrow_context, narrow = self.context, self.cache
        with self._widen(text.n_uncached + rows, len(text.ids) + rows, rows) as wide:
            try:
                self.context, self.cache, self.widened = wide, Cache(wide), True
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
        step = min(context.shape.n_batch, context.shape.n_outputs if on_logits else context.shape.n_batch)
        while len(self.cache) < len(ids):
            chunk = list(ids[len(self.cache) : len(self.cache) + step])
            batch.clear()
            batch.add(chunk, len(self.cache), 0, 1, np.arange(len(chunk)) >= (0 if on_logits else len(chunk) - 1))
            context.decode()
            if on_logits is not None:
                on_logits(len(self.cache), context.logits(len(chunk)))
            self.cache.extend(chunk)

    def room(self, text: TextState) -> int:
        """Nodes that a tree may have in the next pass, its root included; at the context's end there are few."""
        config = self.context.shape
        n_rows = min(config.n_batch, config.n_cells - text.n_committed)
        return min(n_rows - text.n_uncached + 1, config.n_outputs, config.n_seq + 1)  # all but the root may be leaves

    def evaluate(
        self, text: TextState, tree: TokenTree, draw: Draw, progress: Progress | None = None
    ) -> Callable[[int], int]:
        """One pass over the text's uncached tokens and the tree; gives what draws the token after a row of it.

        The round must have begun with `begin`.
        """
        context, n = self.context, text.n_uncached
        self._n_seq = self._decode(text.uncached, tree, within(progress, text.n_committed, n, len(text.ids)))
        return lambda row: draw(context, n - 1 + row)

    def commit(self, text: TextState, tree: TokenTree, accepted: Accepted) -> None:
        """Make text of what was accepted, and keep of what `evaluate` left in the cache as much as lies in order."""
        self.cache.extend(text.uncached, self._n_seq)
        self.cache.extend(tree.token[1 : in_order(accepted.rows)].tolist())
        self.cache.rollback()
        text.ids += accepted.tokens(tree)

    def _decode(self, uncached: list[int], tree: TokenTree, on_layer: OnLayer | None = None) -> int:
        lo, hi = tree.spans()
        n_seq, start, batch = int(hi[0]), len(self.cache), self.context.batch
        self.cache.share(n_seq)
        batch.clear()
        batch.add(uncached[:-1], start, 0, n_seq, False)
        batch.add(tree.token, start + len(uncached) - 1 + tree.depth, lo, hi, True)
        self.context.decode(on_layer)
        return n_seq

    def rollback(self) -> None:
        self.cache.rollback()

    def stop(self) -> None:
        """End the pass that is under way, from another thread, with Stopped."""
        self.context.stop()

    def resume(self) -> None:
        self.context.resume()

    def close(self) -> None:
        self.context.close()
