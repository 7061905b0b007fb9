"""Drafters: what might come next, as a token tree."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cadcpp.cache import Cache
from cadcpp.config import TreeConfig
from cadcpp.growth import Growth
from cadcpp.llmcad import PacedGrowth
from cadcpp.native.context import Context
from cadcpp.tree import TokenTree


class Drafter(Protocol):
    """Proposes continuations of a text."""

    n_evaluated: int  # nodes that the last tree cost

    def grow(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> TokenTree:
        """A tree whose root is the last of ``ids``, within the limits."""
        ...

    def settle(self) -> None:
        """Leave the cache valid, whatever was interrupted."""
        ...

    def close(self) -> None: ...


class NoDrafter:
    """Plain decoding: the tree is its root."""

    n_evaluated = 0

    def grow(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> TokenTree:
        return TokenTree.root(ids[-1])

    def settle(self) -> None:
        pass

    def close(self) -> None:
        pass


class ModelDrafter:
    """Grows a tree with a small resident model.

    A tree cannot be grown with one KV sequence per leaf, since the leaves are not known yet. Instead the
    first evaluated child of a node goes on in its parent's sequence and every further one in a fork of it.
    """

    def __init__(self, context: Context, never: Sequence[int] = ()) -> None:
        self.context = context
        self.cache = Cache(context)
        self.n_decodes = self.n_evaluated = 0
        self._never = np.array(never, np.int32)  # tokens not to draft
        self._grown: dict[tuple[int, ...], int] = {}  # evaluated path below the text -> its sequence
        self._text: list[int] = []

    def grow(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> TokenTree:
        n_cells = min(self.context.config.n_cells, self.context.model.n_ctx_train)  # beyond, drafts are noise
        self.n_evaluated = 0
        config = replace(config, rows=max(min(config.rows, n_cells - len(ids) - config.width), 1))
        if max_depth < 1 or config.rows < 2:
            return TokenTree.root(ids[-1])
        self._adopt(ids)
        kind = Growth if config.alpha is None else PacedGrowth
        growth = kind(ids[-1], config, max_depth, self._never)
        growth.expand([0], self._evaluate_text(ids))
        self._branch(growth)
        return growth.tree()

    def settle(self) -> None:
        self._grown = {}
        self.cache.settle()

    def close(self) -> None:
        self.context.close()

    def _adopt(self, ids: Sequence[int]) -> None:
        """Keep what was evaluated below the last text and has become text since."""
        new = tuple(ids[len(self._text) : -1]) if list(ids[: len(self._text)]) == self._text else ()
        while new and new not in self._grown:
            new = new[:-1]
        if new and len(self.cache) == len(self._text):
            self.cache.adopt(self._grown[new], new)
        self.settle()
        self.cache.align(ids)

    def _evaluate_text(self, ids: Sequence[int]) -> NDArray[np.float32]:
        batch, step = self.context.batch, self.context.config.n_batch
        n_whole = (len(ids) - len(self.cache) - 1) // step * step
        self.cache.prefill(ids, len(self.cache) + n_whole)
        tail = ids[len(self.cache) :]
        batch.clear()
        batch.add(list(tail), len(self.cache), 0, 1, np.arange(len(tail)) == len(tail) - 1)
        self._decode()
        self.cache.extend(tail)
        self._text = list(ids)
        self._grown = {(): 0}
        return self.context.logits(1)

    def _branch(self, growth: Growth | PacedGrowth) -> None:
        paths: dict[int, tuple[int, ...]] = {0: ()}
        ends = {0: 0}  # sequence -> the node it ends at, since only one child may go on in it
        while rows := growth.frontier()[: self.context.config.n_seq - len(ends)]:
            batch = self.context.batch
            batch.clear()
            for row in rows:
                token, parent, depth = growth.position(row)
                position = len(self.cache) + depth - 1
                seq = self._grown[paths[parent]]
                if ends[seq] != parent:
                    source, seq = seq, len(ends)
                    self.cache.branch(source, seq, position)
                ends[seq] = row
                paths[row] = (*paths[parent], token)
                self._grown[paths[row]] = seq
                batch.add([token], position, seq, seq + 1, True)
            self._decode()
            growth.expand(rows, self.context.logits(len(rows)))

    def _decode(self) -> None:
        self.context.decode()
        self.n_decodes += 1
        self.n_evaluated += self.context.batch.n
