"""Reads the experts that a pass is routed to, as they are chosen, and drops those that are used least."""

import time
from collections.abc import Sequence

from cadcpp.errors import ModelError
from cadcpp.residency.expert_cache import ExpertCache
from cadcpp.system.mapping import Mapping
from cadcpp.telemetry.trace import Trace


class ExpertReader:
    """Does what an `ExpertCache` decides, on the thread that decodes: nobody knows earlier what is needed."""

    def __init__(self, mapping: Mapping, cache: ExpertCache, trace: Trace | None = None) -> None:
        self._mapping, self._cache, self._trace = mapping, cache, trace
        self.n_bytes = 0  # read so far

    def read(self, layer: int, experts: Sequence[int]) -> None:
        """Read those of a layer's ``experts`` that are not in memory, all at once. Raises ModelError."""
        chunks = [chunk for extent in self._cache.choose(layer, experts) for chunk in extent.chunks()]
        start, n_bytes = time.perf_counter(), sum(map(len, chunks))
        for chunk in chunks:
            self._mapping.will_need(chunk.part, chunk.start, chunk.stop)
        try:
            for chunk in chunks:
                self._mapping.populate(chunk.part, chunk.start, chunk.stop)
        except ModelError:
            self._cache.unread(layer)
            raise
        self.n_bytes += n_bytes
        if self._trace is not None and chunks:
            self._trace.span("idle", "experts", start, time.perf_counter(), layer=layer, bytes=n_bytes)

    def drop(self, layer: int) -> None:
        """A layer is computed: drop the experts for which there is no room."""
        for extent in self._cache.evict(layer):
            self._mapping.drop(extent.part, extent.start, extent.stop)
