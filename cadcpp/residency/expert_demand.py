"""How likely rows are to use each expert, learned from routings: numbers in, numbers out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Weights of the past in an expert's rate, per row. Of what was tried on recorded routings (bench.studies.expert_routes)
# the mean of a long and a short memory read least at a quarter and at half of the experts together.
_LONG, _SHORT = 0.99, 0.9
_ALIKE = 0.85  # power of their number that rows count for as long as none were seen side by side
_POWERS = np.linspace(0.0, 1.0, 11)
_DOUBT = 64.0  # missing experts that rates count for, beside those that single rows were seen to use
_SLOW = 0.99  # weight of the past in that power, per layer of a pass
FEW = 16  # rows that the power is learned from; those of a prompt use most of what there is, however alike


class ExpertDemand:
    """The share of rows that use each expert of each layer, and how many experts several rows use.

    Rows of one text are alike: n of them use fewer different experts than n rows drawn at random would. They count for
    n ** ``alike`` such rows, a power that is learned of experts that were not in memory: those are read, and rows have
    less of them in common than of the others. Of these a row uses ``level`` times as many as rates say: an expert that
    is not in memory was used once, and a rate forgets that more slowly than the text does.
    """

    def __init__(self, rate: Floats) -> None:
        """``rate`` is what is taken of a model of which nothing is known, [n_layers, n_experts]."""
        self.rate, self.lately, self.alike = rate.copy(), rate.copy(), _ALIKE
        self.n_rows = 0  # seen so far, of each layer
        self._used, self._by_power = 0.0, np.zeros(len(_POWERS))  # missing experts used, and as powers expected it
        self._by_one, self._expected_of_one = _DOUBT, _DOUBT  # ... by single rows, and as rates expected it

    def observe(self, layer: int, chosen: NDArray[np.integer], missing: NDArray[np.bool_]) -> None:
        """Rows of one pass use these experts of a layer, [n, n_used]; ``missing`` are not in memory, [n_experts]."""
        n, n_experts = len(chosen), self.rate.shape[1]
        if n == 0:  # of a last layer without rows that ask for logits
            return
        counts = np.bincount(chosen.ravel(), minlength=n_experts)
        self.n_rows += n if layer == 0 else 0
        if n <= FEW and missing.any():
            rate, n_used = _heat(self.rate[layer], self.lately[layer])[missing], int(np.count_nonzero(counts[missing]))
            if n == 1:
                self._compare_one(rate, n_used)
            else:
                self._compare(rate, n, n_used)
        for rate, fade in ((self.rate, _LONG**n), (self.lately, _SHORT**n)):
            rate[layer] = fade * rate[layer] + (1 - fade) * counts / n

    @property
    def heat(self) -> Floats:
        """How likely a row is to use each expert, [n_layers, n_experts]."""
        return _heat(self.rate, self.lately)

    @property
    def level(self) -> float:
        """Missing experts that a row uses, of those that it should use by their rates."""
        return self._by_one / self._expected_of_one

    def expected(self, missing: NDArray[np.bool_], n_rows: NDArray[np.integer]) -> Floats:
        """How many of the ``missing`` experts, [n_layers, n_experts], passes of so many rows use, [n, n_layers]."""
        heat = self.heat
        counts = [np.where(missing, _chance(heat, n**self.alike), 0.0).sum(axis=1) for n in n_rows.tolist()]
        return self.level * np.array(counts)

    def chance(self, layer: int, n_rows: int) -> Floats:
        """How likely each expert of a layer is to be used by so many rows, [n_experts]."""
        return _chance(self.heat[layer], n_rows**self.alike)

    def hit_rate(self, sizes: NDArray[np.integer], n_bytes: int) -> float:
        """Share of a row's experts in ``n_bytes`` of the likeliest; one of a layer has ``sizes`` bytes."""
        heat = self.heat
        return float(heat[hottest(heat, sizes, n_bytes)].sum() / max(heat.sum(), 1e-9))

    def _compare_one(self, rate: Floats, n_used: int) -> None:
        """A single row used so many."""
        self._by_one = _SLOW * self._by_one + n_used
        self._expected_of_one = _SLOW * self._expected_of_one + float(rate.sum())

    def _compare(self, rate: Floats, n: int, n_used: int) -> None:
        """So many different experts were used by ``n`` rows: find the power by which as many were expected so far."""
        expected = _chance(rate, (n**_POWERS)[:, None]).sum(axis=1)
        self._used = _SLOW * self._used + n_used
        self._by_power = _SLOW * self._by_power + self.level * expected
        power = float(np.interp(self._used, self._by_power, _POWERS))
        self.alike = _SLOW * self.alike + (1 - _SLOW) * power

    def learned(self) -> dict[str, Any]:
        """What another session may start from, in terms of JSON: rates in 1/255, two hexadecimal digits each."""
        return {"alike": self.alike, "rate": [row.tobytes().hex() for row in np.rint(255 * self.rate).astype(np.uint8)]}

    def recall(self, learned: dict[str, Any]) -> None:
        """Start from what was `learned` before. Raises KeyError, TypeError or ValueError for nonsense."""
        rows = [np.frombuffer(bytes.fromhex(row), np.uint8) for row in learned["rate"]]
        rate, alike = np.array(rows) / 255, float(learned["alike"])
        if rate.shape != self.rate.shape or not 0 <= alike <= 1:
            raise ValueError(f"rates of {rate.shape} experts, a power of {alike}")
        self.rate, self.lately, self.alike = rate, rate.copy(), alike


def hottest(heat: Floats, sizes: NDArray[np.integer], n_bytes: int) -> NDArray[np.bool_]:
    """Which experts fill ``n_bytes`` if the hottest come first, [n_layers, n_experts]; one of a layer has ``sizes``."""
    order = np.argsort(heat, axis=None)[::-1]
    each = np.broadcast_to(sizes[:, None], heat.shape).ravel()[order]
    chosen = np.zeros(heat.size, bool)
    chosen[order[np.cumsum(each) <= n_bytes]] = True
    return chosen.reshape(heat.shape)


def _chance(heat: Floats, n_rows: float | Floats) -> Floats:
    """How likely each expert is to be used by so many rows that are drawn at random."""
    return np.asarray(-np.expm1(np.log1p(-np.minimum(heat, 1 - 1e-9)) * n_rows))


def _heat(rate: Floats, lately: Floats) -> Floats:
    return (rate + lately) / 2
