"""The verifier: one target pass over a whole tree, then the accept walk."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from cadcpp.kv.cache import Cache
from cadcpp.native.context import Context, OnLayer
from cadcpp.telemetry.progress import Progress, within
from cadcpp.tree.prices import FIRST_ROWS, TEXT_ROWS
from cadcpp.tree.token_tree import TokenTree
from cadcpp.util.prefix import common_prefix
from cadcpp.verify.accept import Accepted, accept

Draw = Callable[[Context, int], int]  # a token, from the logits of a row of the context's last batch
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

    @contextmanager
    def wide_enough(self, ids: Sequence[int], rows: int) -> Iterator[None]:
        """Inside, a text too long for one pass has a context that takes more of it at once.

        Where memory is short a pass costs a read of the weights, so one pass in a wide, short-lived context
        is worth the copies of the cache that it takes. Nothing changes where the text fits, or if it fails.
        Passes of up to ``rows`` may have memory, those of a text with a small tree at least; in a wide context trees
        may have as many.
        """
        n_uncached = len(ids) - common_prefix(self.cache.tokens, ids)
        if self._widen is None or n_uncached <= max(rows - FIRST_ROWS, TEXT_ROWS):
            yield
            return
        narrow_context, narrow = self.context, self.cache
        with self._widen(n_uncached + rows, len(ids) + rows, rows) as wide:
            try:
                self.context, self.cache, self.widened = wide, Cache(wide), True
                narrow.align(ids)
                narrow.copy_to(self.cache)
                yield
                self.cache.copy_to(narrow)
            finally:
                self.context, self.cache, self.widened = narrow_context, narrow, False

    def prefill(self, ids: Sequence[int], progress: Progress | None = None) -> None:
        """Evaluate whole batches of a new text; the rest of it rides along with the first tree."""
        self.cache.prefill_whole(ids, progress)

    def read(self, ids: Sequence[int], on_logits: OnLogits | None = None) -> None:
        """Evaluate a text to its end: the context then has the logits of its last token, as its last row.

        ``on_logits`` is given those of all tokens that were not in the cache, as far as there were any.
        """
        context, batch = self.context, self.context.batch
        self.cache.align(ids)
        step = min(context.config.n_batch, context.config.n_outputs if on_logits else context.config.n_batch)
        while len(self.cache) < len(ids):
            chunk = list(ids[len(self.cache) : len(self.cache) + step])
            batch.clear()
            batch.add(chunk, len(self.cache), 0, 1, np.arange(len(chunk)) >= (0 if on_logits else len(chunk) - 1))
            context.decode()
            if on_logits is not None:
                on_logits(len(self.cache), context.logits(len(chunk)))
            self.cache.extend(chunk)

    def n_uncached(self, ids: Sequence[int]) -> int:
        """How many tokens of the text the next pass evaluates, the tree's root included."""
        return len(ids) - len(self.cache)

    def room(self, ids: Sequence[int]) -> int:
        """Rows that a tree may have in the next pass, its root included; at the context's end there are few."""
        config = self.context.config
        n_rows = min(config.n_batch, config.n_cells - len(self.cache))
        return min(n_rows - self.n_uncached(ids) + 1, config.n_outputs)

    def check(self, ids: Sequence[int], tree: TokenTree, draw: Draw, progress: Progress | None = None) -> Accepted:
        """A pass, the whole walk on what it gives, and what that leaves in the cache."""
        accepted = accept(tree, self.evaluate(ids, tree, draw, progress))
        self.commit(ids, tree, accepted)
        return accepted

    def evaluate(
        self, ids: Sequence[int], tree: TokenTree, draw: Draw, progress: Progress | None = None
    ) -> Callable[[int], int]:
        """One pass over the text's unevaluated tail and the tree; gives what draws the token after a row of it."""
        self.cache.align(ids)
        context, tail = self.context, list(ids[len(self.cache) :])
        self._n_seq = self._decode(tail, tree, within(progress, len(self.cache), len(tail), len(ids)))
        return lambda row: draw(context, len(tail) - 1 + row)

    def commit(self, ids: Sequence[int], tree: TokenTree, accepted: Accepted) -> None:
        """Of what `evaluate` left in the cache, commit the text, and of the tree what was accepted in order."""
        self.cache.extend(ids[len(self.cache) :], self._n_seq)
        self.cache.extend(tree.token[1 : in_order(accepted.rows)].tolist())
        self.cache.rollback()

    def _decode(self, tail: list[int], tree: TokenTree, on_layer: OnLayer | None = None) -> int:
        lo, hi = tree.spans()
        n_seq, start, batch = int(hi[0]), len(self.cache), self.context.batch
        self.cache.share(n_seq)
        batch.clear()
        batch.add(tail[:-1], start, 0, n_seq, False)
        batch.add(tree.token, start + len(tail) - 1 + tree.depth, lo, hi, True)
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
