"""Reads the experts that a pass is routed to, as they are chosen, and drops those that are used least."""

import time

import numpy as np
from numpy.typing import NDArray

from cadcpp.errors import ModelError
from cadcpp.residency.expert_cache import ExpertCache
from cadcpp.residency.layout import Extent, joined
from cadcpp.residency.read_speed import ReadSpeed
from cadcpp.system.mapping import Mapping
from cadcpp.telemetry.trace import Trace
from cadcpp.tree.prices import SIZES, Floats

_ROWS = np.unique(np.geomspace(1, SIZES, 14).astype(np.int64)) - 1  # between which expectations are interpolated


_BYTE_S = 2e-9  # of reading a byte, before any was read


class ExpertReader:
    """Does what an `ExpertCache` decides, on the thread that decodes: nobody knows earlier what is needed."""

    def __init__(self, mapping: Mapping, cache: ExpertCache, trace: Trace | None = None) -> None:
        self._mapping, self.cache, self._trace = mapping, cache, trace
        self._speed = ReadSpeed()
        self.n_bytes = 0  # read so far
        self.n_used, self.n_read = 0, 0  # experts that passes used so far, and how many of them had to be read
        self.seconds = 0.0  # that compute waited for them

    def expected_seconds(self) -> Floats:
        """What passes of 0, 1, 2, ... rows will wait for experts, as far as that was measured, [SIZES]."""
        n_bytes = self.cache.expected_bytes(_ROWS)
        return np.asarray((self._speed.byte_seconds or _BYTE_S) * np.interp(np.arange(SIZES), _ROWS, n_bytes))

    def read(self, layer: int, chosen: NDArray[np.integer], n_own: int | None = None) -> None:
        """Read those of the experts that a layer's rows use, [n, n_used], that are not in memory. Raises ModelError.

        Only the first ``n_own`` rows tell what others may use; None: all of them.

        All of them are asked of the disk at once, in the order in which they lie there.
        """
        missing, n_used = self.cache.choose(layer, chosen, n_own)
        self.n_used += n_used
        if not missing:
            return
        self._let_go(self.cache.make_room(layer))
        chunks = [chunk for extent in joined(sorted(missing, key=_place)) for chunk in extent.chunks()]
        start = time.perf_counter()
        self._speed.start(start)
        try:
            self._fetch(chunks)
        except ModelError:
            self.cache.unread(layer)
            raise
        stop, n_bytes = time.perf_counter(), sum(map(len, chunks))
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

    def _let_go(self, extents: list[Extent]) -> None:
        for extent in extents:
            self._mapping.drop(extent.part, extent.start, extent.stop)

    def _fetch(self, chunks: list[Extent]) -> None:
        for chunk in chunks:
            self._mapping.will_need(chunk.part, chunk.start, chunk.stop)
        for chunk in chunks:
            self._mapping.populate(chunk.part, chunk.start, chunk.stop)


def _place(extent: Extent) -> tuple[int, int]:
    return extent.part, extent.start
