"""Costs learned while running: seconds as a function of a size, and how far to trust a draft at each depth."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cadcpp.tree.granularity import Granularity
from cadcpp.tree.prices import SIZES, Floats

_FORGET = 0.98  # weight of the past, per observation
_DOUBT_SLOPE = 0.03  # relative variance of sizes that a slope of its own is worth
_PASS_ROWS = 6  # that a pass is taken to cost beside its rows at most; weights are read once and multiplied by each
_DOUBT = 0.5  # observations that a fitted line counts for, beside those of one size
_DOUBTFUL = 0.05  # weight of what was seen under other conditions
_DEPTHS = np.array([0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 8])  # depth -> class; the last one goes on
_PRIOR = np.array([0, 1, 3, 6, 6, 6, 6, 6, 6])  # promised tokens that the depth above counts for, by class
_CREDIT = np.eye(1, len(_PRIOR), 1)[0]  # tokens that a draft is taken to have kept: a text's opening is no fair trial


@dataclass(slots=True)
class PassCost:
    """Seconds of a pass by its number of rows: a line, corrected at the sizes that were seen.

    Kernels work in blocks, so that 8 rows may be faster than 6; no smooth curve tells that. What was seen
    of a size fades, so that one bad measurement does not shut a size out for good.
    """

    seconds: Floats = field(default_factory=lambda: np.zeros(SIZES))  # sums by rows
    count: Floats = field(default_factory=lambda: np.zeros(SIZES))
    bound: tuple[int, float] = (0, 0.0)  # rows and seconds of a pass that was slower than others of its size will be
    granularity: Granularity = Granularity()  # passes are filled up to
    _estimate: Floats | None = field(default=None, init=False, repr=False, compare=False)  # asked for often in a round

    def add(self, n_rows: int, seconds: float) -> None:
        """One pass."""
        n_rows = self.granularity.whole(n_rows)
        if n_rows >= len(self.count):
            self.guess(n_rows, seconds)
            return
        self._estimate = None
        self.seconds, self.count = self.seconds * _FORGET, self.count * _FORGET
        self.seconds[n_rows] += seconds
        self.count[n_rows] += 1

    def doubt(self) -> None:
        """From now on passes may take another time: what was seen counts for little beside what comes."""
        self._estimate = None
        self.seconds, self.count = self.seconds * _DOUBTFUL, self.count * _DOUBTFUL

    @property
    def known(self) -> bool:
        """Whether any pass was seen."""
        return bool(self.count.any() or self.bound[0])

    def guess(self, n_rows: int, seconds: float) -> None:
        """A pass that took longer than others will: better than nothing, and a bound for as long as it is the last."""
        self._estimate = None
        self.bound = self.granularity.whole(n_rows), seconds

    @property
    def seen_plain(self) -> float:
        """How many passes of a single row were seen, the last ones mostly."""
        return float(self.count[self.granularity.whole(1)])

    def learned(self) -> dict[str, Any]:
        """What was seen, in terms of JSON."""
        rows = np.flatnonzero(self.count)
        return {"rows": rows.tolist(), "seconds": self.seconds[rows].tolist(), "count": self.count[rows].tolist()}

    def recall(self, learned: dict[str, Any]) -> None:
        """Start from what was `learned` before. Raises KeyError, TypeError, ValueError or IndexError for nonsense."""
        self._estimate = None
        rows = np.asarray(learned["rows"], np.intp)
        self.seconds[rows], self.count[rows] = learned["seconds"], learned["count"]

    def line(self) -> tuple[float, float]:
        """(a, b) of seconds = a + b rows, both at least 0."""
        if not self.count.any():
            return 0.0, self.bound[1] / max(self.bound[0], 1)
        rows = np.flatnonzero(self.count)
        # Of a size seen often only the mean counts, or it would bend the line to itself.
        weight, mean = np.sqrt(self.count[rows]), self.seconds[rows] / self.count[rows]
        x, y = float(np.average(rows, weights=weight)), float(np.average(mean, weights=weight))
        # While sizes are much alike they say little of the slope: half of the cost, though not more than some rows
        # bring, is then taken to be per pass.
        doubt = _DOUBT_SLOPE * x * x
        spread = float(np.average((rows - x) ** 2, weights=weight))
        common = float(np.average((rows - x) * (mean - y), weights=weight))
        slope = (common + doubt * y / max(x + min(x, _PASS_ROWS), 1.0)) / max(spread + doubt, 1e-9)
        slope = min(max(slope, 0.0), y / max(x, 1.0), self._steepest(x, y))
        return y - slope * x, slope

    def _steepest(self, x: float, y: float) -> float:
        """The slope from a point to the bound; small trees alone would not tell that large ones are cheap."""
        n_rows, seconds = self.bound
        return max(seconds - y, 0.0) / (n_rows - x) if n_rows > 2 * x else math.inf

    def estimate(self) -> Floats:
        """Seconds of passes of 0, 1, 2, ... rows, [SIZES]; not to be changed."""
        if self._estimate is None:
            self._estimate = self._fit()
        return self._estimate

    def _fit(self) -> Floats:
        base, slope = self.line()
        fitted = base + slope * np.arange(len(self.count))
        by_rows = np.asarray((self.seconds + _DOUBT * fitted) / (self.count + _DOUBT))
        return by_rows[np.minimum(self.granularity.steps(len(by_rows)), len(by_rows) - 1)]


@dataclass(slots=True)
class AcceptanceByDepth:
    """Accepted tokens over those that the draft's probabilities promised, by depth."""

    promised: Floats = field(default_factory=_CREDIT.copy)
    accepted: Floats = field(default_factory=_CREDIT.copy)

    def observe(self, promised: Floats, n_accepted: int) -> None:
        """One tree: the sum of its nodes' probabilities at each depth, and how deep the accepted path went."""
        depth = np.arange(1, len(promised))
        groups = _DEPTHS[np.minimum(depth, len(_DEPTHS) - 1)]
        size = len(self.promised)
        fade = np.where(np.bincount(groups, minlength=size) > 0, 0.97, 1.0)  # only what is seen anew makes the old fade
        self.promised = fade * self.promised + np.bincount(groups, promised[1:], size)
        self.accepted = fade * self.accepted + np.bincount(groups, (depth <= n_accepted) * 1.0, size)

    def learned(self) -> dict[str, Any]:
        """What was seen, in terms of JSON."""
        return {"promised": self.promised.tolist(), "accepted": self.accepted.tolist()}

    def recall(self, learned: dict[str, Any]) -> None:
        """Start from what was `learned` before. Raises KeyError, TypeError or ValueError for nonsense."""
        self.promised[:], self.accepted[:] = learned["promised"], learned["accepted"]

    def forget(self) -> None:
        """Give a draft that failed another chance."""
        self.promised, self.accepted = 0.3 * self.promised, 0.3 * self.accepted

    def by_depth(self) -> Floats:
        """Factors for the probabilities of nodes at depth 0, 1, 2, ...; the last one goes on.

        What is not known of a depth is taken from the one above, without which it would not be reached.
        """
        ratio = [1.0]
        for prior, promised, accepted in zip(_PRIOR[1:], self.promised[1:], self.accepted[1:], strict=True):
            ratio.append((prior * ratio[-1] + accepted) / (prior + promised))
        return np.asarray(np.clip(ratio, 0.05, 2.0)[_DEPTHS])
