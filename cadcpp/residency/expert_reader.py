"""Reads the experts that a pass is routed to, as they are chosen, and drops those that are used least."""

import time

import numpy as np
from numpy.typing import NDArray

from cadcpp.errors import ModelError
from cadcpp.residency.expert_cache import ExpertCache
from cadcpp.residency.expert_demand import FEW
from cadcpp.residency.layout import Extent, joined
from cadcpp.residency.read_speed import PassReads, ReadSpeed
from cadcpp.residency.token_routes import TokenRoutes
from cadcpp.system.mapping import Mapping
from cadcpp.telemetry.trace import Trace
from cadcpp.tree.prices import SIZES, Floats

_ROWS = np.unique(np.geomspace(1, SIZES, 14).astype(np.int64)) - 1  # between which expectations are interpolated


_BYTE_S = 2e-9  # of reading a byte, before any was read
_LOOKED_AT = 32  # experts at a time, to see whether those that are kept are in memory


class ExpertReader:
    """Does what an `ExpertCache` decides, on the thread that decodes: nobody knows earlier what is needed."""

    def __init__(self, mapping: Mapping, cache: ExpertCache, trace: Trace | None = None) -> None:
        self._mapping, self.cache, self._trace = mapping, cache, trace
        self._speed, self._passes, self._routes = ReadSpeed(), PassReads(), TokenRoutes()
        self._row_experts = 0.0  # that an average row is expected to read
        self._before = 0, 0.0  # bytes and seconds, when this pass began
        self._is_wide = False  # as a prompt's, which tells of no other
        self.n_bytes = 0  # read so far
        self.n_used, self.n_read = 0, 0  # experts that passes used so far, and how many of them had to be read
        self.n_ahead, self.n_wrong = 0, 0  # experts that were asked for before that was known, and in vain
        self.seconds = 0.0  # that compute waited for them
        self._is_ahead = False  # whether the disk reads already what is read next
        self._n_looks = 0
        self._left, self._left_at = 0, 0.0  # the last layer that had what it needs, and the clock then

    def expected_seconds(self) -> Floats:
        """What passes of 0, 1, 2, ... rows will wait for experts, as far as that was measured, [SIZES]."""
        n_bytes = self.cache.expected_bytes(_ROWS)
        self._row_experts = float(n_bytes[1]) / self.cache.expert_bytes
        seconds = self._passes.seconds(n_bytes, self._byte_s)
        return np.asarray(np.interp(np.arange(SIZES), _ROWS, seconds))

    def row_reads(self, tokens: NDArray[np.integer]) -> Floats:
        """How many experts rows of these tokens would read by now, in an average row's, [n]."""
        return self._routes.expected(tokens, self.cache.missing, self._row_experts)

    def start_pass(self, tokens: NDArray[np.int32]) -> None:
        """A pass over rows of these tokens, [n], begins."""
        self._routes.begin(tokens, self.cache.missing)

    def end_pass(self) -> None:
        """Learn what the pass's tokens used, and how long it waited for what it read."""
        self._routes.end(learn=not self._is_wide)
        n_bytes, seconds = self._before
        if self.n_bytes > n_bytes and not self._is_wide:
            self._passes.add(self.n_bytes - n_bytes, self.seconds - seconds)
        self._before, self._is_wide = (self.n_bytes, self.seconds), False

    @property
    def _byte_s(self) -> float:
        return self._speed.byte_seconds or _BYTE_S

    def read(self, layer: int, chosen: NDArray[np.integer], n_own: int | None = None) -> None:
        """Read those of the experts that a layer's rows use, [n, n_used], that are not in memory. Raises ModelError.

        Only the first ``n_own`` rows tell what others may use; None: all of them. Of the next layer the disk is asked
        for what so many rows will likely use, as much as it can read while this one is computed.
        """
        computed_s = time.perf_counter() - self._left_at if layer > self._left else 0.0
        missing, n_used = self.cache.choose(layer, chosen, n_own)
        self._routes.note(chosen[:n_own])
        self._let_go(wrong := self.cache.wrong())
        self.n_bytes += sum(map(len, wrong))
        self.n_wrong += self.cache.n_wrong
        self.n_used += n_used
        self._is_wide |= len(chosen) > FEW
        if missing:
            self._read_missing(layer, missing, n_used)
        self._read_ahead(layer, len(chosen), computed_s)
        self._left, self._left_at = layer, time.perf_counter()

    def _read_ahead(self, layer: int, n_rows: int, seconds: float) -> None:
        """What is not used in the end has cost no time: the disk has ``seconds`` for it in any case."""
        ahead, dropped = self.cache.foresee(layer, n_rows, int(seconds / self._byte_s))
        self._let_go(dropped)
        self._ask(_chunks(ahead))
        self._is_ahead = bool(ahead)
        self.n_ahead += self.cache.n_ahead

    def _read_missing(self, layer: int, missing: list[Extent], n_used: int) -> None:
        """All that a layer lacks is asked of the disk at once, in the order in which it lies there."""
        self._let_go(self.cache.make_room(layer))
        chunks = _chunks(missing)
        start = time.perf_counter()
        self._speed.start(start)
        try:
            self._fetch(chunks)
        except ModelError:
            self.cache.unread(layer)
            raise
        stop, n_bytes = time.perf_counter(), sum(map(len, chunks))
        if not self._is_ahead:  # else the wait says less than the bytes
            self._speed.finish(stop, n_bytes)
        self.n_bytes, self.seconds = self.n_bytes + n_bytes, self.seconds + stop - start
        n_read = self.cache.n_new
        self.n_read += n_read
        if self._trace is not None:
            counts = {"layer": layer, "bytes": n_bytes, "used": n_used, "read": n_read}
            for lane in ("disk", "idle"):  # compute waits for all that is read
                self._trace.span(lane, "experts", start, stop, **counts)

    def drop(self, layer: int) -> None:
        """A layer is computed: drop the experts for which there is no room."""
        self._let_go(self.cache.evict(layer))

    def resize(self, n_bytes: int, room: int) -> None:
        """Keep ``n_bytes`` of experts from now on, and have ``room`` for them and those in use."""
        self._let_go(self.cache.resize(n_bytes, room))

    def look(self) -> int:
        """Bytes of experts that the system has taken, as it does where memory is short; they are not kept any more.

        A few experts are looked at each time, all of them if something is missing. For a missing page the kernel reads
        what lies around it, megabytes that nobody uses and that drive others out; all of that is dropped.
        """
        held, self._n_looks = self.cache.held(), self._n_looks + 1
        apart = len(held) // _LOOKED_AT + 1
        if all(map(self._is_whole, held[self._n_looks % apart :: apart])):
            return 0
        lost = self.cache.lose(held[[not self._is_whole(one) for one in held]])
        self._let_go(joined(sorted(self.cache.absent(), key=_place)))
        return lost

    def _is_whole(self, held: NDArray[np.intp]) -> bool:
        return all(self._mapping.in_memory(e.part, e.start, e.stop) for e in self.cache.extents_of(held))

    def _let_go(self, extents: list[Extent]) -> None:
        for extent in extents:
            self._mapping.drop(extent.part, extent.start, extent.stop)

    def _fetch(self, chunks: list[Extent]) -> None:
        self._ask(chunks)
        for chunk in chunks:
            self._mapping.populate(chunk.part, chunk.start, chunk.stop)

    def _ask(self, chunks: list[Extent]) -> None:
        for chunk in chunks:
            self._mapping.will_need(chunk.part, chunk.start, chunk.stop)


def _chunks(extents: list[Extent]) -> list[Extent]:
    """What is asked of the disk, in the order in which it lies there."""
    return [chunk for extent in joined(sorted(extents, key=_place)) for chunk in extent.chunks()]


def _place(extent: Extent) -> tuple[int, int]:
    return extent.part, extent.start
