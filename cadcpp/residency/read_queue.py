"""What to read next, what to drop, and when to wait: decisions without a thread, a file or a clock."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from cadcpp.errors import ModelError
from cadcpp.residency.layout import Extent

DEPTH = 4  # chunks asked of the disk at once: enough to keep it busy
_START = -2  # before layer -1, which stands for what a pass needs before its first block

Place = tuple[int, int]  # number of a pass, layer in it
Step = Literal["drop", "ask", "take", "wait"]
Order = Callable[[], Iterable[tuple[Extent, bool]]]  # what a pass reads, first things first, and whether it is to stay


@dataclass(frozen=True, slots=True)
class Read:
    """A chunk that is read for a pass."""

    number: int  # of the pass
    chunk: Extent
    stays: bool  # in memory; else it passes through the window

    @property
    def place(self) -> Place:
        return self.number, self.chunk.layer


class ReadQueue:
    """Reads on their way: upcoming, asked of the disk, and in the window until compute is past them.

    ``order`` is asked for a pass's reads when the last ones of the pass before are on their way. What does not stay is
    read up to ``room`` bytes ahead of compute, and the next pass is begun while this one runs only if ``ahead``.
    """

    def __init__(self, order: Order, n_layers: int, room: int, *, ahead: bool) -> None:
        self._order, self._n_layers, self._ahead = order, n_layers, ahead
        self.room, self.paused = room, False
        self.error: ModelError | None = None  # what was to be read next could not be
        self.at: Place = (0, n_layers)  # compute: this pass, done up to this layer
        self._wanted: Place = (0, _START)  # ... and what it waits for, or had last
        self.planned = 0  # the last pass whose reads are known
        self._upcoming, self.asked, self._window = deque[Read](), deque[Read](), deque[Read]()
        self._used = 0  # bytes of the window, and of what is asked for it

    # where compute is -----------------------------------------------------------------------------

    def start_pass(self) -> None:
        """A pass begins. One that was cut short leaves reads behind that nobody waits for."""
        number = self.at[0] + 1
        self.at, self.error = (number, _START), None
        self._upcoming = deque(read for read in self._upcoming if read.number >= number)

    def layer_done(self, layer: int) -> None:
        self.at = (self.at[0], layer)

    def end_pass(self) -> None:
        self.layer_done(self._n_layers)

    def want(self, layer: int) -> None:
        """Compute needs a layer of its pass now."""
        self._wanted = (self.at[0], layer)

    @property
    def ready(self) -> bool:
        """Whether what compute wanted last is in memory."""
        pending = self.asked or self._upcoming
        return pending[0].place > self._wanted if pending else self.planned >= self._wanted[0]

    # what the disk does ---------------------------------------------------------------------------

    def next_step(self) -> Step:
        """Drop what compute is past, ask for a chunk, take one that was asked for, or wait for a change."""
        if self._has_passed:
            return "drop"
        if len(self.asked) < DEPTH:
            if self._must_plan:
                self._plan(max(self.planned + 1, self.at[0]))
            if self._may_ask():
                return "ask"
        return "take" if self.asked else "wait"

    @property
    def idle(self) -> bool:
        """Whether `next_step` would be to wait, where compute is by now."""
        return not (self._has_passed or self.asked or self._must_plan or self._may_ask())

    def ask(self) -> Extent:
        """The next chunk, which is asked for from now on."""
        read = self._upcoming.popleft()
        self._used += 0 if read.stays else len(read.chunk)
        self.asked.append(read)
        return read.chunk

    def take(self) -> None:
        """The chunk that was asked for first is in memory."""
        read = self.asked.popleft()
        if not read.stays:
            self._window.append(read)

    def pop_passed(self) -> list[Extent]:
        """The chunks that compute is past; their room is not free before `free` says so."""
        passed = []
        while self._has_passed:
            passed.append(self._window.popleft().chunk)
        return passed

    def free(self, chunks: Iterable[Extent]) -> None:
        """The window has room again for as many bytes."""
        self._used -= sum(map(len, chunks))

    def give_up(self, error: ModelError) -> None:
        """The chunk that was asked for first is not to be had: nothing more is read before the next pass."""
        self.error, number = error, self.asked[0].number
        self.free(read.chunk for read in self.asked if not read.stays)
        self.asked.clear()
        self._forget(number)

    def resume(self) -> None:
        """After a pause in which the order changed: plan anew what the pass has not had yet."""
        self._forget(self.at[0])
        self.paused = False

    def _forget(self, number: int) -> None:
        """Plan again from pass ``number`` on."""
        self._upcoming.clear()
        self.planned = number - 1

    @property
    def _has_passed(self) -> bool:
        """Whether compute is past the first chunk of the window."""
        return bool(self._window) and self._window[0].place <= self.at

    @property
    def _must_plan(self) -> bool:
        return not self.error and not self._upcoming and self.planned < self.at[0] + self._ahead

    def _may_ask(self) -> bool:
        """Whether the next chunk may be asked for, if there is one."""
        if self.error or not self._upcoming or self.paused:
            return False
        read = self._upcoming[0]
        urgent = read.place <= self._wanted  # compute waits for it
        return read.stays or urgent or self._used + len(read.chunk) <= self.room

    def _plan(self, number: int) -> None:
        held = {read.chunk for read in self._window if read.number == number}
        held |= {read.chunk for read in self.asked if read.stays}
        reads = (Read(number, chunk, stays) for chunk, stays in self._order() if chunk not in held)
        self._upcoming.extend(read for read in reads if read.place > self.at)
        self.planned = number
