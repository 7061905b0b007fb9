"""The pager: keeps part of the verifier in memory and streams the rest past an exact compute cursor."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from cadcpp.modes import Pin
from cadcpp.residency.cursor_check import CursorCheck
from cadcpp.residency.expert_cache import ExpertCache, evictable_bytes, kept_bytes, lendable_bytes, usable_bytes
from cadcpp.residency.expert_demand import ExpertDemand
from cadcpp.residency.expert_reader import ExpertReader
from cadcpp.residency.layout import CHUNK, HUGE, Extent, Layout
from cadcpp.residency.pager import PagerState
from cadcpp.residency.pinned_set import PinnedSet
from cadcpp.residency.prefetcher import Prefetcher
from cadcpp.residency.read_queue import ReadQueue
from cadcpp.system.mapping import Mapping
from cadcpp.system.memory_limits import give_back, is_limited, lockable_bytes, spare_bytes
from cadcpp.telemetry.trace import Trace

logger = logging.getLogger(__name__)

_NOTABLE_S = 1e-4  # shorter waits are not worth a line in a trace
_SWEEP = 16  # passes after which embedding rows read by faults are dropped
_LOST = 32 << 20  # bytes taken by the system that tell of too little memory; more go once missing pages are read
_LOOK_S = 0.25  # how often to see whether memory has become short


class StreamingPager:
    """Fetches each pass's streamed extents in order, at most ``window_bytes`` ahead of what is dropped.

    What a layer used is dropped behind it: the resident set stays constant, the kernel never has to choose what to
    reclaim, and pinned pages stay even where mlock is not allowed. Where ``spare`` says that memory has become short,
    experts and pinned chunks are evicted, in the middle of a pass too, and read when they are used from then on. After
    a pass the reading goes on with the next one's first layers, unless ``ahead`` is false. The first pass takes the
    pinned extents along on its way.
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
        pin: Pin = "auto",
        spare: Callable[[], int] = spare_bytes,
    ) -> None:
        self._mapping, self._layout, self._window_bytes = mapping, layout, window_bytes
        self._streamed_bytes = layout.streamed_bytes
        self._expert_bytes = expert_bytes
        # What others have of that and of what is pinned: since memory is short, for a while, and for good.
        self._evicted = self._borrowed = self._reserved = 0
        self._trace, self._ahead, self._spare = trace, ahead, spare
        self._looked = time.monotonic()
        self._experts = ExpertReader(mapping, ExpertCache(layout.experts, *self._expert_room(expert_bytes)), trace)
        self._routed_seconds = self._experts.expected_seconds() if layout.experts else None
        self._cursor = CursorCheck(layers=layout.n_layers > 1, routers=bool(layout.experts))
        self._streamed, self._pinned = _chunks(layout.streamed), PinnedSet(_chunks(layout.pinned))
        queue = ReadQueue(self._order, layout.n_layers, self._window_room(), ahead=ahead)
        pin = _how(pin, layout.pinned_bytes)
        keep = {"locked": mapping.lock, "anonymous": mapping.copy}.get(pin)
        self._let_go = {"locked": mapping.unlock, "anonymous": mapping.map_file}.get(pin)
        huge = pin != "anonymous" and _is_huge(mapping, layout)  # whose reading ahead would take in what is copied
        self._reads = Prefetcher(mapping, queue, self._pinned.add, trace, keep=keep, huge=huge)

    def start_pass(self, tokens: NDArray[np.int32]) -> None:
        """A pass over rows of these tokens, [n], begins: wait for what its first layer needs."""
        self._experts.start_pass(tokens)
        self._start_reads()

    def _start_reads(self) -> None:
        self._reads.start_pass()
        self._look()
        self._wait_for(0)

    def experts_chosen(self, layer: int, chosen: NDArray[np.int32], n_own: int) -> None:
        """A layer's rows are routed to experts, [n, n_used]: read those that are not in memory, all at once.

        Rows after the first ``n_own`` fill the pass up.
        """
        self._cursor.experts_chosen()
        self._experts.read(layer, chosen, n_own)

    def layer_done(self, layer: int) -> None:
        """A layer is computed: drop what it used, and wait for what the next one needs."""
        self._cursor.layer_done()
        if layer <= self._reads.at_layer:  # llama.cpp has begun another pass for the same batch
            self._start_reads()
        self._experts.drop(layer)
        self._reads.layer_done(layer)
        self._look()
        self._wait_for(layer + 1)

    def end_pass(self, whole: bool) -> None:
        """The pass is over: everything streamed can go, and at times the rows of embeddings that it left."""
        if self._reads.n_passes % _SWEEP == 0:
            self._drop(self._layout.sparse)
        self._reads.end_pass()
        if self._layout.experts:
            self._experts.end_pass()
            self._routed_seconds = self._experts.expected_seconds()
        if (complaint := self._cursor.end_pass(whole)) is not None:
            logger.warning("cadcpp: %s", complaint)

    @contextmanager
    def borrow(self, n_bytes: int) -> Iterator[None]:
        """Inside, ``n_bytes`` fewer are kept, so that somebody else can have the memory: of experts first.

        A long text, for which this is done, needs nearly all of these once, whatever stays of them.
        """
        self._borrowed = n_bytes
        self._rebalance()
        try:
            yield
        finally:
            self._borrowed = 0
            self._rebalance()

    def reserve(self, n_bytes: int) -> None:
        """Keep ``n_bytes`` less than planned, from now on: of experts first."""
        if n_bytes != self._reserved:
            self._reserved = n_bytes
            self._rebalance()

    def spared_by(self, n_bytes: int) -> float:
        """Share of the reads of experts, as counted lately, that would not be needed if these had ``n_bytes`` more."""
        return self._experts.cache.spared_by(n_bytes)

    def give(self, n_bytes: int) -> None:
        """Keep ``n_bytes`` more of experts than planned, from now on."""
        self._expert_bytes += n_bytes
        self._rebalance()

    def wait_for_stall(self, seconds: float) -> bool:
        return self._reads.wait_for_stall(seconds)

    @property
    def demand(self) -> ExpertDemand:
        """How likely each expert is to be used, which another session may start from."""
        return self._experts.cache.demand

    def state(self) -> PagerState:
        with self._reads.lock:
            return PagerState(
                pinned_bytes=self._pinned.resident_bytes,
                locked_bytes=self._pinned.locked_bytes,
                streamed_bytes=self._reads.streamed_bytes,
                expert_bytes=self._experts.n_bytes,
                experts_used=self._experts.n_used,
                experts_read=self._experts.n_read,
                experts_ahead=self._experts.n_ahead,
                experts_wrong=self._experts.n_wrong,
                expert_seconds=self._experts.seconds,
                expert_alike=self._experts.cache.demand.alike,
                routed_seconds=self._routed_seconds,
                row_reads=self._experts.row_reads,
                stall_seconds=self._reads.stall_seconds + self._experts.seconds,
                passes=self._reads.n_passes,
                waiting_seconds=self._reads.waiting_seconds,
                pass_bytes=self._streamed_bytes + self._pinned.streamed_bytes,
                byte_seconds=self._reads.byte_seconds,
                ahead_seconds=self._window_bytes * self._reads.byte_seconds * self._ahead,
                layers_reported=self._cursor.reported,
            )

    def close(self) -> None:
        """Stop reading. May be called twice."""
        self._reads.close()

    def _look(self) -> None:
        """Give memory back where it has become short, or take it again."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked, pinned = now, self._pinned
        lost = min(self._experts.look(), _LOST)
        with self._reads.lock:
            unlocked = pinned.resident_bytes - pinned.locked_bytes + self._shares()[0] + lost
        evicted = give_back(self._spare(), unlocked, self._window_room(), self._evicted)
        evicted = min(evicted, self._evictable + pinned.n_bytes + self._window_bytes)
        if evicted != self._evicted:
            self._evicted = evicted
            self._rebalance()

    def _rebalance(self) -> None:
        """Keep as much less as others have."""
        kept, taken = self._shares()
        self._experts.resize(*self._expert_room(kept))
        with self._reads.standing_still() as queue:
            self._pinned.taken = taken
            dropped = self._pinned.rebalance()
            queue.room = self._window_room()
        if self._let_go is not None:
            for chunk in dropped:
                self._let_go(chunk.part, chunk.start, chunk.stop)
        self._drop(dropped)

    def _shares(self) -> tuple[int, int]:
        """Bytes that experts keep, and that pinned weights give up: experts give first, of which a pass uses few."""
        planned = self._borrowed + self._reserved
        lent = min(planned, lendable_bytes(self._layout.experts, self._expert_bytes))
        evicted = min(self._evicted, self._evictable - lent)
        return self._expert_bytes - lent - evicted, planned - lent + self._evicted - evicted

    @property
    def _evictable(self) -> int:
        return evictable_bytes(self._layout.experts, self._expert_bytes)

    def _expert_room(self, n_bytes: int) -> tuple[int, int]:
        """Of ``n_bytes`` for experts what those have that stay, and those in use beside them."""
        return kept_bytes(self._layout.experts, n_bytes), usable_bytes(self._layout.experts, n_bytes)

    def _window_room(self) -> int:
        return self._pinned.window_room(self._window_bytes, least=CHUNK)

    def _order(self) -> list[tuple[Extent, bool]]:
        """What a pass reads, in its order, and whether that is to stay."""
        missing = self._pinned.missing
        needed = {*self._streamed, *self._pinned.streamed, *missing}
        return [(c, c in missing) for c in sorted(needed, key=lambda c: (c.layer, c.part, c.start))]

    def _wait_for(self, layer: int) -> None:
        start, stop = self._reads.wait_for(layer)
        if self._trace is not None and stop - start > _NOTABLE_S:
            self._trace.span("idle", "weights" if layer > 0 else "first layer", start, stop, layer=layer)

    def _drop(self, extents: Iterable[Extent]) -> None:
        for extent in extents:
            self._mapping.drop(extent.part, extent.start, extent.stop)


def _how(pin: Pin, n_bytes: int) -> Pin:
    """How ``n_bytes`` are kept in memory."""
    if pin != "auto":
        return pin
    if is_limited():  # a limit that is lowered beneath what cannot be taken kills; without one this keeps others off
        return "off"
    return "locked" if lockable_bytes() >= n_bytes else "anonymous"


def _chunks(extents: Iterable[Extent]) -> list[Extent]:
    return [chunk for extent in extents for chunk in extent.chunks()]


def _is_huge(mapping: Mapping, layout: Layout) -> bool:
    """Whether the kernel reads this layout in huge pages from now on."""
    extents = (*layout.pinned, *layout.streamed)
    return layout.align == HUGE and all(mapping.huge(e.part, e.start, e.stop) for e in extents)
