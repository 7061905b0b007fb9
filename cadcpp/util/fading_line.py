"""A line through points that fade."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64] | float


class FadingLine:
    """The mean of points (x, y), and how y grows with x; older points count for less."""

    def __init__(self) -> None:
        self._sums = np.zeros(5)  # weights, x, y, x x, x y

    def fade(self, factor: float) -> None:
        """Let the points so far count for this much of what they did."""
        self._sums *= factor

    def add(self, x: Numbers, y: Numbers) -> None:
        """One point, or several, [n]."""
        x, y = np.atleast_1d(x), np.atleast_1d(y)
        self._sums += np.stack([np.ones(len(x)), x, y, x * x, x * y]).sum(axis=1)

    @property
    def weight(self) -> float:
        """What the points count for together; 0 before the first."""
        return float(self._sums[0])

    @property
    def mean(self) -> tuple[float, float]:
        """Of x and of y; 0 before the first point."""
        x, y = self._sums[1:3] / max(self.weight, 1e-9)
        return float(x), float(y)

    def slope(self, doubt: float, prior: float = 0.0) -> float:
        """What y grows by with x, which is ``prior`` as long as x varies little beside a variance of ``doubt``, > 0."""
        (x, y), (xx, xy) = self.mean, self._sums[3:] / self.weight
        return float((xy - x * y + doubt * prior) / (xx - x * x + doubt))
