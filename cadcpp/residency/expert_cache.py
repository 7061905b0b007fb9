"""Which experts of a mixture stay in memory: numbers in, ranges out."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cadcpp.residency.expert_demand import FEW, ExpertDemand, Floats, hottest
from cadcpp.residency.layout import ExpertLayer, Extent

_NEWCOMER = 0.9  # a newcomer must be hotter than this much more than who stays: equals would take turns
_LIKELY = 0.5  # how likely an expert must be used to be read before that is known
_LATELY = 0.995  # weight of the past in what more room would have spared, per layer of a pass
_NONE: NDArray[np.int64] = np.zeros(0, np.int64)
_TIE = 1e-9  # of heat: of equals, who came last goes first, since layers come in turn


def kept_bytes(layers: Iterable[ExpertLayer], room: int) -> int:
    """Of ``room``, what holds experts between passes; the rest is for those that a row uses just now."""
    layers = list(layers)
    usable = usable_bytes(layers, room)
    used = max((layer.expert_bytes * layer.n_used for layer in layers), default=0)
    return usable if _fits(layers, room) else usable - min(used, usable // 2)


def usable_bytes(layers: Iterable[ExpertLayer], room: int) -> int:
    """Of ``room``, what holds whole experts; in the rest are pages that two share, which stay when one of them goes."""
    layers = list(layers)
    borders = sum(layer.border_bytes for layer in layers)
    return room if _fits(layers, room) else room - min(borders, room // 2)


def lendable_bytes(layers: Iterable[ExpertLayer], room: int) -> int:
    """Of ``room``, what others may have by plan: half of what can be done without, unless all fits."""
    layers = list(layers)
    return 0 if _fits(layers, room) else evictable_bytes(layers, room) // 2


def evictable_bytes(layers: Iterable[ExpertLayer], room: int) -> int:
    """Of ``room``, what can be done without: the rest holds a layer that is computed and one that is read."""
    return max(room - 2 * max((layer.n_bytes for layer in layers), default=room), 0)


def _fits(layers: list[ExpertLayer], room: int) -> bool:
    return room >= sum(layer.n_bytes for layer in layers)


class ExpertCache:
    """Keeps the experts that rows used most often lately, in ``n_bytes`` between two layers.

    What a layer's rows are routed to is in memory beside them while the layer is computed, however rarely it is used;
    where that is more than ``room`` for both, others go before it is read.
    Recency would not do: layers come in turn, so a cache that is too small would always have dropped what is needed
    next.
    """

    def __init__(self, layers: Iterable[ExpertLayer], n_bytes: int, room: int | None = None) -> None:
        self._layers = {layer.layer: layer for layer in layers}
        self._rank = {number: i for i, number in enumerate(self._layers)}
        self._numbers = list(self._layers)
        self._sizes = np.array([layer.expert_bytes for layer in self._layers.values()], np.int64)
        n_experts, n_used = _counts(self._layers.values())
        self._exists = np.arange(n_experts.max(initial=0)) < n_experts
        self.demand = ExpertDemand(np.where(self._exists, n_used / np.maximum(n_experts, 1), 0.0))
        self._resident = np.zeros(self._exists.shape, bool)
        self._read_at = np.zeros(self._exists.shape)
        self._n_chosen = 0
        self._keep, self._room = n_bytes, room
        self._beyond = np.zeros(self._exists.shape, bool)  # what more room would hold
        self._n_missed, self._n_spared = 0.0, 0.0  # lately: experts that were not in memory, and that were in the above
        self._used = 0  # bytes of what is resident
        self._chosen = self._new = _NONE
        self._ahead = self._wrong = (0, _NONE)  # a layer's experts that were foreseen, and that were so in vain

    def choose(self, layer: int, chosen: NDArray[np.integer], n_own: int | None = None) -> tuple[list[Extent], int]:
        """A layer's rows are about to use experts, [n, n_used]: what must be read, and how many experts they use.

        The first ``n_own`` rows tell what others may use; None: all of them.
        """
        row = self._rank[layer]
        self._wrong, self._ahead = self._ahead, (0, _NONE)
        self.demand.observe(row, chosen[:n_own], ~self._resident[row] & self._exists[row])
        self._chosen = used = np.unique(chosen)
        self._new = used[~self._resident[row, used]]
        self._n_chosen += 1
        self._n_missed = _LATELY * self._n_missed + len(self._new)
        self._n_spared = _LATELY * self._n_spared + float(self._beyond[row, self._new].sum())
        self._read_at[row, self._new] = self._n_chosen
        self._resident[row, self._new] = True
        self._used += len(self._new) * int(self._sizes[row])
        if self._wrong[0] == row:
            self._wrong = row, np.setdiff1d(self._wrong[1], used)
        return self._extents(layer, self._new), len(used)

    def foresee(self, layer: int, n_rows: int, n_bytes: int) -> tuple[list[Extent], list[Extent]]:
        """What of the next layer so many rows will likely use, to be read meanwhile, and what must go before.

        The likeliest, up to ``n_bytes`` of them, fewer where memory is short. Asked after `choose` and `make_room`.
        """
        row = self._rank[layer] + 1
        if row == len(self._numbers) or n_rows <= FEW or self._room is None:  # what few rows likely use is in memory
            return [], []
        size, heat = int(self._sizes[row]), self._heat()
        heat[row - 1, self._chosen] = heat[row] = np.inf
        movable = int(self._sizes @ np.isfinite(heat).sum(axis=1))
        most = min(n_bytes, self._room - self._used + movable) // size
        self._ahead = row, self._likeliest(row, n_rows, max(most, 0))
        return self._extents(self._numbers[row], self._ahead[1]), self._drop(heat, self._room - self._ahead_bytes)

    def _likeliest(self, row: int, n_rows: int, most: int) -> NDArray[np.int64]:
        """Of a layer's experts that are not in memory those that so many rows will likely use."""
        chance = self.demand.chance(row, n_rows)
        likely = np.flatnonzero((chance > _LIKELY) & self._exists[row] & ~self._resident[row])
        return likely[np.argsort(-chance[likely], kind="stable")][:most]

    def wrong(self) -> list[Extent]:
        """What was foreseen before the last `choose`, and is not used."""
        row, experts = self._wrong
        return self._extents(self._numbers[row], experts)

    @property
    def n_ahead(self) -> int:
        """Experts that `foresee` gave last, to be read."""
        return len(self._ahead[1])

    @property
    def n_wrong(self) -> int:
        """Experts that `wrong` gives."""
        return len(self._wrong[1])

    @property
    def _ahead_bytes(self) -> int:
        row, experts = self._ahead
        return len(experts) * int(self._sizes[row])

    @property
    def n_new(self) -> int:
        """Experts that `choose` gave last, to be read."""
        return len(self._new)

    def unread(self, layer: int) -> None:
        """What `choose` gave last for a layer could not be read."""
        row = self._rank[layer]
        self._resident[row, self._new] = False
        self._used -= len(self._new) * int(self._sizes[row])
        self._new = _NONE

    def make_room(self, layer: int) -> list[Extent]:
        """What must go before what `choose` gave for a layer is read, the coldest first; nothing that it uses."""
        if self._room is None or self._used <= self._room:
            return []
        heat = self._heat()
        heat[self._rank[layer], self._chosen] = np.inf
        return self._drop(heat, self._room)

    def evict(self, layer: int) -> list[Extent]:
        """A layer is computed: what must go, the coldest first."""
        if layer not in self._rank:
            return []
        room = self._keep if self._room is None else min(self._keep, self._room - self._ahead_bytes)
        if self._used <= room:
            return []
        heat = self._heat()
        heat[self._rank[layer], self._new] *= _NEWCOMER
        self._new = _NONE
        return self._drop(heat, room)

    def _heat(self) -> Floats:
        """Of what is in memory; infinite elsewhere."""
        heat = self.demand.heat - _TIE * self._read_at / max(self._n_chosen, 1)
        return np.where(self._resident, heat, np.inf)

    def _drop(self, heat: Floats, n_bytes: int) -> list[Extent]:
        """Let the coldest go until the others have ``n_bytes``, or only those of infinite heat are left."""
        dropped: list[Extent] = []
        while self._used > n_bytes:
            row, expert = divmod(int(np.argmin(heat)), heat.shape[1])
            if np.isinf(heat[row, expert]):
                break
            heat[row, expert] = np.inf
            self._resident[row, expert] = False
            self._used -= int(self._sizes[row])
            dropped += self._extents(self._numbers[row], [expert])
        return dropped

    def resize(self, n_bytes: int, room: int) -> list[Extent]:
        """Keep ``n_bytes`` from now on, and have ``room`` for them and those in use; gives what must go for that."""
        self._keep, self._room = n_bytes, room
        return self._drop(self._heat(), n_bytes)

    def held(self) -> NDArray[np.intp]:
        """The experts that are in memory by now, by layer in their order and number, [n, 2]."""
        return np.argwhere(self._resident)

    def extents_of(self, one: NDArray[np.intp]) -> list[Extent]:
        """Where an expert lies, as `held` names them, [2]."""
        return self._extents(self._numbers[one[0]], one[1:])

    def lose(self, held: NDArray[np.intp]) -> int:
        """Some of `held`, [n, 2], are not in memory any more, through no doing of this cache's; gives their bytes."""
        rows, experts = held.T
        self._resident[rows, experts] = False
        n_bytes = int(self._sizes[rows].sum())
        self._used -= n_bytes
        return n_bytes

    def absent(self) -> list[Extent]:
        """All that is not to be in memory by now."""
        return [extent for one in np.argwhere(self.missing) for extent in self.extents_of(one)]

    def spared_by(self, n_bytes: int) -> float:
        """Share of the experts read lately that would have been in memory with ``n_bytes`` more.

        That is counted from the first time that it is asked: what was dropped and is still used most would be there.
        """
        heat = np.where(self._resident | (self._read_at == 0), 0.0, self.demand.heat)
        self._beyond = hottest(heat, self._sizes, n_bytes) & (heat > 0)
        return self._n_spared / self._n_missed if self._n_missed else 0.0

    def expected_bytes(self, n_rows: NDArray[np.integer]) -> Floats:
        """Bytes that passes of so many rows are expected to read, [n]."""
        return np.asarray(self.demand.expected(self.missing, n_rows) @ self._sizes)

    @property
    def n_bytes(self) -> int:
        """Of what is in memory by now."""
        return self._used

    @property
    def expert_bytes(self) -> float:
        """Of an expert on average."""
        return float(self._sizes.mean())

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Experts that are not in memory by now, [n_layers, n_experts]."""
        return np.asarray(self._exists & ~self._resident)

    @property
    def hit_rate(self) -> float:
        """Share of a row's experts that are expected in memory."""
        return self.demand.hit_rate(self._sizes, self._keep)

    def _extents(self, layer: int, experts: Iterable[int]) -> list[Extent]:
        return [extent for expert in experts for extent in self._layers[layer].extents(int(expert))]


def _counts(layers: Iterable[ExpertLayer]) -> NDArray[np.int64]:
    """Experts that there are and that a row uses, [2, n_layers, 1]."""
    return np.array([(layer.n_experts, layer.n_used) for layer in layers], np.int64).reshape(-1, 2, 1).swapaxes(0, 1)
