"""How many rows a pass must have so that its kernels round every row alike."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Granularity:
    """Passes have a multiple of ``multiple`` rows, ``least`` at least; by default any number will do."""

    least: int = 1
    multiple: int = 1

    def whole(self, n: int) -> int:
        """Rows of a pass that has ``n`` of its own, one at least."""
        return -(-max(n, self.least) // self.multiple) * self.multiple

    @property
    def padding(self) -> int:
        """Rows that a pass may have to be filled up with, at most."""
        return max(self.whole(1), self.multiple) - 1

    def steps(self, n: int) -> NDArray[np.int_]:
        """`whole` of 0, 1, ... n - 1, [n]; a pass without rows is none."""
        rows = -(-np.maximum(np.arange(n), self.least) // self.multiple) * self.multiple
        rows[:1] = 0
        return np.asarray(rows)
