"""Which experts of a mixture stay in memory: numbers in, ranges out."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cadcpp.residency.layout import ExpertLayer, Extent

_FADE = 0.9  # weight of the past in an expert's heat, per pass
_NEWCOMER = 0.9  # a newcomer must be hotter than this much more than who stays: equals would take turns


def kept_bytes(layers: Iterable[ExpertLayer], room: int) -> int:
    """Of ``room``, what holds experts between passes; the rest is for those that a layer uses just now."""
    sizes = [layer.n_bytes for layer in layers]
    return room if room >= sum(sizes) else room - min(max(sizes), room // 2)


class ExpertCache:
    """Keeps the experts that passes chose most often lately, in ``room`` bytes.

    What a layer's rows are routed to is in memory while the layer is computed, whatever its heat; a part of
    the room is set aside for that. Recency would not do: layers come in turn, so a cache that is too small
    would always have dropped what is needed next.
    """

    def __init__(self, layers: Iterable[ExpertLayer], room: int) -> None:
        self._layers = {layer.layer: layer for layer in layers}
        self._rank = {number: i for i, number in enumerate(self._layers)}
        self._sizes = np.array([layer.expert_bytes for layer in self._layers.values()], np.int64)
        most = max((layer.n_experts for layer in self._layers.values()), default=0)
        self._heat = np.zeros((len(self._layers), most))
        self._resident = np.zeros(self._heat.shape, bool)
        self._keep = kept_bytes(self._layers.values(), room)
        self._new: NDArray[np.int64] = np.zeros(0, np.int64)

    def choose(self, layer: int, experts: Iterable[int]) -> list[Extent]:
        """A layer is about to use ``experts``: what must be read for it."""
        row = self._rank[layer]
        chosen = np.array(sorted(set(experts)), np.int64)
        self._heat[row] *= _FADE
        self._heat[row, chosen] += 1.0
        self._new = chosen[~self._resident[row, chosen]]
        self._resident[row, self._new] = True
        return self._extents(layer, self._new)

    def unread(self, layer: int) -> None:
        """What `choose` gave last for a layer could not be read."""
        self._resident[self._rank[layer], self._new] = False
        self._new = np.zeros(0, np.int64)

    def evict(self, layer: int) -> list[Extent]:
        """A layer is computed: what must go, the coldest first."""
        if layer not in self._rank:
            return []
        dropped: list[Extent] = []
        heat = np.where(self._resident, self._heat, np.inf)
        heat[self._rank[layer], self._new] *= _NEWCOMER
        order = np.argsort(heat, axis=None)
        over = int(self._resident.sum(axis=1) @ self._sizes) - self._keep
        numbers = list(self._layers)
        for flat in order:
            if over <= 0 or not np.isfinite(heat.flat[flat]):
                break
            row, expert = divmod(int(flat), heat.shape[1])
            self._resident[row, expert] = False
            over -= int(self._sizes[row])
            dropped += self._extents(numbers[row], [expert])
        self._new = np.zeros(0, np.int64)
        return dropped

    def _extents(self, layer: int, experts: Iterable[int]) -> list[Extent]:
        return [extent for expert in experts for extent in self._layers[layer].extents(int(expert))]
