"""The pager: keeps part of the verifier in memory and streams the rest past an exact compute cursor."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from cadcpp.errors import ModelError
from cadcpp.residency.expert_cache import ExpertCache
from cadcpp.residency.layout import CHUNK, HUGE, Extent, Layout
from cadcpp.residency.pager import PagerState
from cadcpp.system.mapping import Mapping
from cadcpp.system.memory_limits import give_back, is_limited, spare_bytes
from cadcpp.telemetry.trace import Trace

logger = logging.getLogger(__name__)

_NOTABLE_S = 1e-4  # shorter waits are not worth a line in a trace
_START = -2  # before layer -1, which stands for what a pass needs before its first block
_DEPTH = 4  # chunks asked of the disk at once: enough to keep it busy
_SWEEP = 16  # passes after which embedding rows read by faults are dropped
_LOOK_S = 0.25  # how often to see whether memory has become short
_FADE = 0.99  # per chunk, for the measured speed
_Item = tuple[int, Extent]  # number of the pass, what it needs


class StreamingPager:
    """Fetches each pass's streamed extents in order, at most ``window_bytes`` ahead of what is dropped.

    One thread reads; the thread that decodes only waits, between two layers, until the next one is in
    memory, so that no page fault ever reads around itself. What a layer used is dropped behind it: the
    resident set stays constant, the kernel never has to choose what to reclaim, and pinned pages stay
    even where mlock is not allowed. Where ``spare`` says that memory has become short, pinned chunks are
    given back, in the middle of a pass too, and streamed from then on. After a pass the thread goes on with
    the next one's first layers, unless ``ahead`` is false.
    The first pass takes the pinned extents along on its way.
    """

    def __init__(
        self,
        mapping: Mapping,
        layout: Layout,
        window_bytes: int,
        expert_bytes: int = 0,
        trace: Trace | None = None,
        *,
        ahead: bool = True,
        lock: bool = True,
        spare: Callable[[], int] = spare_bytes,
    ) -> None:
        self._trace, self._ahead, self._spare = trace, ahead, spare
        self._looked = time.monotonic()
        self._given = 0  # pinned bytes given back since memory is short
        self._borrowed = self._ceded = 0  # ... lent to somebody, for a while or for good
        self._mapping, self._layout, self._window_bytes = mapping, layout, window_bytes
        self._experts = ExpertCache(layout.experts, expert_bytes)
        self._expert_bytes = 0
        self._streamed, self._pinned = _chunks(layout.streamed), _chunks(layout.pinned)
        self._changed = threading.Condition()
        self._at = (0, layout.n_layers)  # compute: this pass, done up to this layer
        self._wanted = (0, _START)  # ... and what it waits for, or had last
        self._fetch_pass = 0
        self._upcoming: deque[_Item] = deque()
        self._asked: deque[tuple[int, Extent, bool]] = deque()  # being read; whether to keep it
        self._window: deque[_Item] = deque()  # streamed chunks in memory
        self._window_used = 0  # bytes of the window and of the streamed chunks being read
        self._missing = set(self._pinned)  # pinned chunks that nobody has asked for yet
        self._lent = set[Extent]()  # pinned chunks that are streamed for now
        # A limit that is lowered beneath what is locked kills; without a limit locking keeps others off.
        self._may_lock, self._running, self._paused = lock and not is_limited(), True, False
        self._locked = set[Extent]()
        self._pinned_bytes = self._streamed_bytes = 0
        self._stalled, self._stall_s, self._wait_start = False, 0.0, 0.0
        self._error: ModelError | None = None  # what was to be read next could not be
        self._busy_s = self._busy_bytes = 0.0  # recent reading, older reads fading out
        self._busy_from = 0.0
        self._huge = layout.align == HUGE and all(
            mapping.huge(e.part, e.start, e.stop) for e in (*layout.pinned, *layout.streamed)
        )
        self._thread = threading.Thread(target=self._run, name="cadcpp-pager", daemon=True)
        self._thread.start()

    # the decoding thread --------------------------------------------------------------------------

    def start_pass(self) -> None:
        """A pass begins: wait for what its first layer needs."""
        with self._changed:
            self._at = (self._at[0] + 1, _START)
            self._error = None
        self._look()
        with self._changed:
            # A pass that was cut short leaves orders behind that nobody waits for.
            self._upcoming = deque(item for item in self._upcoming if item[0] >= self._at[0])
            self._wait_for(0)

    def experts_chosen(self, layer: int, experts: Sequence[int]) -> None:
        """A layer's rows are routed to ``experts``: read those that are not in memory, all at once."""
        chunks = _chunks(self._experts.choose(layer, experts))
        start, n_bytes = time.perf_counter(), sum(map(len, chunks))
        for chunk in chunks:
            self._mapping.will_need(chunk.part, chunk.start, chunk.stop)
        try:
            for chunk in chunks:
                self._mapping.populate(chunk.part, chunk.start, chunk.stop)
        except ModelError:
            self._experts.unread(layer)
            raise
        self._expert_bytes += n_bytes
        if self._trace is not None and chunks:
            self._trace.span("idle", "experts", start, time.perf_counter(), layer=layer, bytes=n_bytes)

    def layer_done(self, layer: int) -> None:
        """A layer is computed: give back what it used, and wait for what the next one needs."""
        if layer <= self._at[1]:  # llama.cpp has begun another pass for the same batch
            self.start_pass()
        for extent in self._experts.evict(layer):
            self._mapping.drop(extent.part, extent.start, extent.stop)
        with self._changed:
            self._at = (self._at[0], layer)
        self._look()
        with self._changed:
            self._wait_for(layer + 1)

    def end_pass(self) -> None:
        """The pass is over: everything streamed can go, and at times the rows of embeddings that it left."""
        if self._at[0] % _SWEEP == 0:
            for extent in self._layout.sparse:
                self._mapping.drop(extent.part, extent.start, extent.stop)
        with self._changed:
            self._at = (self._at[0], self._layout.n_layers)
            self._changed.notify_all()

    def wait_for_stall(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._stalled, seconds)

    def state(self) -> PagerState:
        with self._changed:
            return PagerState(
                self._pinned_bytes,
                sum(map(len, self._locked)),
                self._streamed_bytes,
                self._expert_bytes,
                self._stall_s,
                self._at[0],
                time.perf_counter() - self._wait_start if self._stalled else 0.0,
                self._layout.streamed_bytes + sum(map(len, self._lent)),
                byte_s := self._busy_s / self._busy_bytes if self._busy_bytes else 0.0,
                self._window_bytes * byte_s * self._ahead,
            )

    def close(self) -> None:
        """Stop reading. May be called twice."""
        with self._changed:
            self._running = False
            self._changed.notify_all()
        self._thread.join()

    @contextmanager
    def lend(self, n_bytes: int) -> Iterator[None]:
        """Inside, ``n_bytes`` fewer are pinned, so that somebody else can have the memory."""
        self._borrowed = n_bytes
        self._lend()
        try:
            yield
        finally:
            self._borrowed = 0
            self._lend()

    def cede(self, n_bytes: int) -> None:
        if n_bytes != self._ceded:
            self._ceded = n_bytes
            self._lend()

    def _look(self) -> None:
        """Give pinned chunks back where memory has become short, or take them again."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        with self._changed:
            unlocked = self._pinned_bytes - sum(map(len, self._locked))
        given = give_back(self._spare(), unlocked, self._window_room(), self._given)
        given = min(given, sum(map(len, self._pinned)) + self._window_bytes)
        if given != self._given:
            self._given = given
            self._lend()

    def _window_room(self) -> int:
        """Less than planned where all that was pinned is given back, and memory is still short."""
        return max(min(self._window_bytes, self._window_bytes + sum(map(len, self._pinned)) - self._given), CHUNK)

    def _lend(self) -> None:
        """Stream as many pinned chunks as are given back or lent, and no others."""
        with self._standing_still():
            lent = _spread(self._pinned, self._given + self._borrowed + self._ceded)
            resident = lent - self._lent - self._missing
            self._missing = (self._missing | self._lent) - lent
            self._lent = lent
            self._pinned_bytes -= sum(map(len, resident))
            self._locked -= resident
        for chunk in resident:
            self._mapping.unlock(chunk.part, chunk.start, chunk.stop)
            self._mapping.drop(chunk.part, chunk.start, chunk.stop)

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        """Hold the reading thread still; afterwards it plans anew what the pass has not had yet."""
        with self._changed:
            self._paused = True
            while self._asked and self._running:
                self._changed.wait()
            yield
            self._upcoming.clear()
            self._fetch_pass = self._at[0] - 1
            self._paused = False
            self._changed.notify_all()

    def _wait_for(self, layer: int) -> None:
        self._wanted = (self._at[0], layer)
        self._wait_start = start = time.perf_counter()
        self._stalled = not self._ready(self._wanted)
        self._changed.notify_all()
        while self._running and not self._error and not self._ready(self._wanted):
            self._changed.wait()
        self._stalled, stop = False, time.perf_counter()
        self._stall_s += stop - start
        if self._error and not self._ready(self._wanted):
            raise self._error
        if self._trace is not None and stop - start > _NOTABLE_S:
            self._trace.span("idle", "weights" if layer > 0 else "first layer", start, stop, layer=layer)

    def _ready(self, wanted: tuple[int, int]) -> bool:
        pending = self._asked or self._upcoming
        if pending:
            return (pending[0][0], pending[0][1].layer) > wanted
        return self._fetch_pass >= wanted[0]

    # the reading thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (work := self._next_work()) is not None:
                work()
        except Exception:  # paging is advice: without it pages are read when they are touched
            logger.exception("the pager stopped; the kernel pages on its own")
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()

    def _next_work(self) -> Callable[[], None] | None:
        """What to do next, chosen under the lock and done outside it; None at the end."""
        with self._changed:
            while self._running:
                if self._window and _place(self._window[0]) <= self._at:
                    return self._drop
                if len(self._asked) < _DEPTH and self._may_ask():
                    return self._ask
                if self._asked:
                    return self._take
                self._changed.wait()
            return None

    def _may_ask(self) -> bool:
        if self._error:
            return False
        if not self._upcoming and self._fetch_pass < self._at[0] + self._ahead:
            self._plan_pass(max(self._fetch_pass + 1, self._at[0]))
        if not self._upcoming or self._paused:
            return False
        number, chunk = self._upcoming[0]
        urgent = (number, chunk.layer) <= self._wanted  # compute waits for it
        return chunk in self._missing or urgent or self._window_used + len(chunk) <= self._window_room()

    def _plan_pass(self, number: int) -> None:
        held = {chunk for other, chunk in self._window if other == number}
        needed = {*self._streamed, *self._missing, *self._lent} - held
        items = (chunk for chunk in needed if (number, chunk.layer) > self._at)
        self._upcoming.extend((number, c) for c in sorted(items, key=lambda c: (c.layer, c.part, c.start)))
        self._fetch_pass = number
        self._changed.notify_all()  # a pass that needs nothing is ready

    def _ask(self) -> None:
        with self._changed:
            item = self._upcoming.popleft()
            chunk = item[1]
            pinned = chunk in self._missing
            self._missing.discard(chunk)
            self._window_used += 0 if pinned else len(chunk)
            if not self._asked:
                self._busy_from = time.perf_counter()
            self._asked.append((*item, pinned))
        if not self._huge:
            self._mapping.will_need(chunk.part, chunk.start, chunk.stop)

    def _take(self) -> None:
        number, chunk, pinned = self._asked[0]
        start = time.perf_counter()
        try:
            self._mapping.populate(chunk.part, chunk.start, chunk.stop)
        except ModelError as error:
            self._give_up(number, error)
            return
        if self._trace is not None:
            args = {"bytes": len(chunk), "layer": chunk.layer, "pass": number}
            self._trace.span("disk", "keep" if pinned else "stream", start, time.perf_counter(), **args)
        locked = pinned and self._lock(chunk)
        with self._changed:
            self._asked.popleft()
            now = time.perf_counter()
            self._busy_s = self._busy_s * _FADE + now - self._busy_from
            self._busy_bytes = self._busy_bytes * _FADE + len(chunk)
            self._busy_from = now
            if pinned:
                self._pinned_bytes += len(chunk)
                self._locked |= {chunk} if locked else set()
            else:
                self._streamed_bytes += len(chunk)
                self._window.append((number, chunk))
            self._changed.notify_all()

    def _give_up(self, number: int, error: ModelError) -> None:
        """What was asked for is not to be had: nothing of this pass is read any more."""
        with self._changed:
            for _, chunk, pinned in self._asked:
                if pinned:
                    self._missing.add(chunk)
                else:
                    self._window_used -= len(chunk)
            self._asked.clear()
            self._upcoming.clear()
            self._fetch_pass, self._error = number - 1, error
            self._changed.notify_all()

    def _drop(self) -> None:
        with self._changed:
            old = []
            while self._window and _place(self._window[0]) <= self._at:
                old.append(self._window.popleft()[1])
        for extent in _joined(old):
            self._mapping.drop(extent.part, extent.start, extent.stop)
        with self._changed:
            self._window_used -= sum(map(len, old))

    def _lock(self, chunk: Extent) -> bool:
        self._may_lock = self._may_lock and self._mapping.lock(chunk.part, chunk.start, chunk.stop)
        return self._may_lock


def _place(item: _Item) -> tuple[int, int]:
    return item[0], item[1].layer


def _chunks(extents: Iterable[Extent]) -> list[Extent]:
    return [chunk for extent in extents for chunk in extent.chunks()]


def _spread(chunks: list[Extent], n_bytes: int) -> set[Extent]:
    """Chunks of at least ``n_bytes``, from all layers alike."""
    share = min(n_bytes / max(sum(map(len, chunks)), 1), 1.0)
    chosen, passed, taken = set[Extent](), 0, 0
    for chunk in chunks:
        passed += len(chunk)
        if taken < share * passed:
            chosen.add(chunk)
            taken += len(chunk)
    return chosen


def _joined(chunks: list[Extent]) -> list[Extent]:
    """Neighbouring chunks as one range: a folio across a border would survive two separate drops."""
    joined: list[Extent] = []
    for chunk in chunks:
        if joined and joined[-1].part == chunk.part and joined[-1].stop == chunk.start:
            joined[-1] = Extent(chunk.part, joined[-1].start, chunk.stop, chunk.layer)
        else:
            joined.append(chunk)
    return joined
