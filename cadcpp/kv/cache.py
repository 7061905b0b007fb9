"""Book-keeping for one KV cache: a trunk of text in position order, and branches on it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cadcpp.errors import ConfigError
from cadcpp.telemetry.progress import Progress, within
from cadcpp.util.prefix import common_prefix

if TYPE_CHECKING:
    from cadcpp.native.context import Context


@dataclass(frozen=True, slots=True)
class Kept:
    """A recurrent state, as it was after so many tokens."""

    n: int = 0
    data: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))


class Cache:
    """The trunk lies on sequence 0; sequences 1, 2, ... share a part of it and carry branches for one round.

    ``tokens`` is the truth: whatever goes wrong in a round, `rollback` takes the cache back to exactly that.
    Other sequences keep their share of the trunk between rounds, so that a round copies only what is new.
    """

    def __init__(self, context: "Context") -> None:
        self.context = context
        self.tokens: list[int] = []
        self._shared = [0] * context.shape.n_seq  # trunk positions that each sequence holds; unused for sequence 0
        self._n_seq = 1  # sequences that this round may have touched

    def __len__(self) -> int:
        return len(self.tokens)

    def align(self, ids: Sequence[int]) -> None:
        """Keep only what is a prefix of ``ids``, and leave at least its last token to be evaluated."""
        n = min(common_prefix(self.tokens, list(ids)), len(ids) - 1)
        if n == len(self.tokens):
            return
        del self.tokens[n:]
        self._shared = [min(shared, n) for shared in self._shared]
        self._n_seq = len(self._shared)
        self.rollback()

    def prefill(self, ids: Sequence[int], stop: int, progress: Progress | None = None) -> None:
        """Evaluate ``ids`` up to position ``stop`` without asking for logits, in as few decodes as fit."""
        batch, step = self.context.batch, self.context.shape.step()
        while len(self) < stop:
            chunk = list(ids[len(self) : min(len(self) + step, stop)])
            self.share(1)
            batch.clear()
            batch.add(chunk, len(self), 0, 1, False)
            self.context.decode(within(progress, len(self), len(chunk), len(ids)))
            self.extend(chunk)
            if progress is not None:
                progress(len(self), len(ids))

    def prefill_whole(self, ids: Sequence[int], progress: Progress | None = None) -> None:
        """Take up a new text: evaluate it in whole batches, and leave the rest, one token at least, for later."""
        self.align(ids)
        step = self.context.shape.step()
        n_whole = (len(ids) - len(self) - 1) // step * step
        self.prefill(ids, len(self) + n_whole, progress)

    def mark(self) -> None:
        """The trunk is the end of a text, which others may begin with."""

    def share(self, n_seq: int, n_doubtful: int = 0) -> None:
        """A pass begins: make sequences 1 .. n_seq - 1 equal to the trunk."""
        if n_seq > len(self._shared):
            raise ConfigError(
                f"a tree with {n_seq} leaves needs as many sequences, the context has {len(self._shared)}"
            )
        self._n_seq = max(self._n_seq, n_seq)
        for seq in range(1, n_seq):
            if self._shared[seq] < len(self):
                self.context.fork(0, seq, self._shared[seq], len(self))
                self._shared[seq] = len(self)

    def branch(self, source: int, seq: int, stop: int) -> None:
        """Make the fresh sequence ``seq`` equal to ``source`` up to position ``stop``, beyond the trunk."""
        self._n_seq = max(self._n_seq, seq + 1)
        self.context.fork(source, seq, self._shared[seq], stop)
        self._shared[seq] = len(self)

    def extend(self, tokens: Sequence[int], n_seq: int = 1) -> None:
        """Count tokens just decoded on sequences 0 .. n_seq - 1 as trunk."""
        self.tokens.extend(tokens)
        for seq in range(1, n_seq):
            self._shared[seq] = len(self)

    def commit(self, tokens: Sequence[int], own: Sequence[int] = (), n_seq: int = 1, winner: int = 0) -> None:
        """Of a pass count as trunk ``tokens``, which sequences 0 .. n_seq - 1 hold, and the ``own`` of one after them.

        That is ``winner``, which is another than 0 only where sequences have nothing in common but the trunk. What else
        the pass left is dropped.
        """
        self.extend(tokens, n_seq)
        self.extend(own)
        self.rollback()

    def adopt(self, seq: int, tokens: Sequence[int], keep: Collection[int] = ()) -> None:
        """Count the cells of branch ``seq`` right after the trunk as trunk.

        Of the other branches those of ``keep``, which go on from there, stay for the next round.
        """
        start, stop = len(self), len(self) + len(tokens)
        if 0 not in keep and seq != 0:
            self.context.trim(0, start)
            self.context.fork(seq, 0, start, stop)
        elif 0 not in keep:
            self.context.trim(0, stop)
        for other in range(1, self._n_seq):
            if other in keep:
                self._shared[other] = stop
            else:
                self.context.trim(other, self._shared[other])
        self.tokens.extend(tokens)

    def copy_to(self, other: "Cache") -> None:
        """Make another cache hold this trunk and nothing else."""
        other.clear()
        if self.tokens:
            self.context.copy_to(other.context)
        other.tokens = list(self.tokens)

    def assume(self, tokens: Sequence[int]) -> None:
        """Take sequence 0 for a trunk of these tokens, whoever put it there."""
        for seq in range(1, len(self._shared)):
            self.context.trim(seq, 0)
        self.tokens, self._shared = list(tokens), [0] * len(self._shared)

    def marks(self) -> list[Kept]:
        """States of earlier ends of a text, the last one first."""
        return []

    def load(self, data: bytes, tokens: Sequence[int], marks: Sequence[Kept] = ()) -> None:
        """Hold what `Context.save` gave when the trunk was a part of these tokens, and `marks`."""
        self.clear()
        self.context.restore(data)
        self.tokens = list(tokens[: self.context.n_held()])

    def clear(self) -> None:
        """Hold nothing."""
        self.context.clear()
        self.tokens, self._shared = [], [0] * len(self._shared)

    def rollback(self) -> None:
        """Drop every cell that is not trunk. Leaves the cache valid after anything, at any time.

        A text that is given up after its session was closed has nothing to leave.
        """
        if self.context.closed:
            return
        self.context.trim(0, len(self))
        for seq in range(1, self._n_seq):
            self.context.trim(seq, self._shared[seq])
        self._n_seq = 1
