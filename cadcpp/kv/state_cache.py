"""Book-keeping for a model with recurrent state, of which only what was kept can be taken back."""

from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from cadcpp.kv.cache import Cache, Kept
from cadcpp.residency.states import States
from cadcpp.util.prefix import common_prefix

if TYPE_CHECKING:
    from cadcpp.native.context import Context

_OLD = 32  # tokens that may have to be evaluated again after an interruption, beside a batch


def cache_of(context: "Context") -> Cache:
    """A cache as the context's model needs it."""
    return Cache(context) if context.shape.states is None else StateCache(context, context.shape.states)


class StateCache(Cache):
    """A pass changes a state in place, also one that is stopped or fails, so a copy of it is kept outside.

    Rows of a pass that are no text in the end are taken back with llama.cpp's own snapshots where these reach so far.
    Else the copy is restored, the trunk becomes shorter, and the next pass evaluates again what it lost.
    """

    def __init__(self, context: "Context", states: States) -> None:
        super().__init__(context)
        self._n_snapshots = context.n_snapshots
        self._kept, self._marks = Kept(), deque[Kept](maxlen=states.n_marks)
        self._open = False  # whether a pass may have changed the state

    def align(self, ids: Sequence[int]) -> None:
        self.rollback()
        n = min(common_prefix(self.tokens, list(ids)), len(ids) - 1)
        if n < len(self):
            self._return_to(n)

    def mark(self) -> None:
        """Keep the state for another text that begins alike."""
        if self._marks.maxlen and self.tokens and all(mark.n != len(self) for mark in self._marks):
            self._marks.append(Kept(len(self), self.context.save_state()))

    def share(self, n_seq: int, n_doubtful: int = 0) -> None:
        """A pass begins, of which up to ``n_doubtful`` rows of each sequence may be no text."""
        if self._open:
            return
        is_late = len(self) - self._kept.n > _OLD or n_doubtful > self._n_snapshots or n_seq > 1
        if is_late and self._kept.n != len(self):
            self._kept = Kept(len(self), self.context.save_state(self._kept.data))
            if n_seq > 1:  # copies are of the last row's state, whatever was taken back since
                self.context.restore_state(self._kept.data)
        for seq in range(1, n_seq):
            self.context.fork(0, seq, 0, len(self))
        self._open, self._n_seq = True, max(self._n_seq, n_seq)

    def extend(self, tokens: Sequence[int], n_seq: int = 1) -> None:
        self.commit(tokens)

    def commit(self, tokens: Sequence[int], own: Sequence[int] = (), n_seq: int = 1, winner: int = 0) -> None:
        """Count the first rows of one sequence of the pass as trunk, if its state can be taken back to there."""
        stop = len(self) + len(tokens) + len(own)
        n_wrong = self.context.n_held(winner) - stop
        if n_wrong > (self._n_snapshots if stop > len(self) else 0):
            self.rollback()
            return
        if n_wrong:
            self.context.trim(winner, stop)
        if winner:
            self._take_over(winner, stop)
        self._drop_branches()
        self.tokens += [*tokens, *own]
        self._open = False

    def _take_over(self, winner: int, stop: int) -> None:
        """Put what a branch has after the trunk, up to ``stop``, to the cells right after the trunk's.

        There plain decoding would have it: attention sums in the order of cells.
        """
        context, start = self.context, len(self)
        context.drop_start(winner, start)
        tail = context.save(winner)
        self._drop_branches()
        self._restore(self._kept)
        context.restore(tail, 1)
        context.fork(1, 0, start, stop)
        context.trim(1, 0)

    def _drop_branches(self) -> None:
        for seq in range(1, self._n_seq):
            self.context.trim(seq, 0)
        self._n_seq = 1

    def branch(self, source: int, seq: int, stop: int) -> None:
        """A state goes on as a whole, so ``source`` must end at ``stop``."""
        self._n_seq = max(self._n_seq, seq + 1)
        self.context.fork(source, seq, 0, stop)

    def adopt(self, seq: int, tokens: Sequence[int], keep: Collection[int] = ()) -> None:
        """Count as trunk what a branch has, which ends there; of the trunk itself, as far as its state can go back."""
        if seq == 0:
            self.commit(tokens)
            return
        self.context.trim(0, 0)
        self.context.fork(seq, 0, 0, len(self) + len(tokens))
        for other in set(range(1, self._n_seq)) - set(keep):
            self.context.trim(other, 0)
        self.tokens += tokens
        self._open, self._n_seq = False, self._n_seq if keep else 1

    def assume(self, tokens: Sequence[int]) -> None:
        self.tokens, self._open = list(tokens), False
        self._forget(0)

    def marks(self) -> list[Kept]:
        return list(self._marks)[::-1]

    def load(self, data: bytes, tokens: Sequence[int], marks: Sequence[Kept] = ()) -> None:
        super().load(data, tokens)
        own = self.context.save_state()
        self._marks.extend(mark for mark in marks[::-1] if self._is_state(mark))
        self.context.restore_state(own)
        self._open = False

    def _is_state(self, mark: Kept) -> bool:
        """Whether this model can have the state after the trunk's first tokens. The model has it afterwards."""
        self.context.restore_state(mark.data)
        return self.context.n_held() == mark.n and len(self.context.save_state()) == len(mark.data)

    def clear(self) -> None:
        super().clear()
        self._open = False
        self._forget(0)

    def copy_to(self, other: Cache) -> None:
        marks = list(self._marks)
        super().copy_to(other)
        if isinstance(other, StateCache):
            other._marks.extend(marks)

    def rollback(self) -> None:
        """Take the state back to where it was kept, if a pass may have changed it since, and drop all branches."""
        if self.context.closed:
            return
        self._drop_branches()
        if self._open:
            self._return_to(len(self))

    def _return_to(self, n: int) -> None:
        """The last state that was kept after ``n`` tokens or fewer; nothing if there is none."""
        self._forget(n + 1)
        best = max([self._kept, *self._marks], key=lambda kept: kept.n)
        del self.tokens[best.n :]
        self._open = False
        self._drop_branches()
        self._restore(best)

    def _restore(self, kept: Kept) -> None:
        """Make sequence 0 hold the text up to a state that was kept, and no more."""
        if kept.n:
            self.context.restore_state(kept.data)
            self.context.trim(0, kept.n)
        else:
            self.context.clear()

    def _forget(self, n: int) -> None:
        """What was kept after ``n`` tokens or more."""
        self._kept = self._kept if self._kept.n < n else Kept(0, self._kept.data)
        for mark in [mark for mark in self._marks if mark.n >= n]:
            self._marks.remove(mark)
