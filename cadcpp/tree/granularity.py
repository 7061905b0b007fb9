"""How many rows a pass must have so that its kernels round every row alike."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16  # rows that ggml gives to a thread at once; of more it makes blocks, which may be odd where the sum is even


@dataclass(frozen=True, slots=True)
class Granularity:
    """Passes have ``least`` rows at least, and a multiple of ``multiple``, or of ``large`` if they are more than 16.

    By default any number will do.
    """

    least: int = 1
    multiple: int = 1
    large: int = 1

    def whole(self, n: int) -> int:
        """Rows of a pass that has ``n`` of its own, one at least."""
        rows = -(-max(n, self.least) // self.multiple) * self.multiple
        return -(-rows // self.large) * self.large if rows > _BLOCK else rows

    def length(self, n_seq: int, n: int) -> int:
        """Rows of each of some sequences that have ``n`` or fewer: they and all together are such a number."""
        length = self.whole(n)
        while self.whole(n_seq * length) != n_seq * length or self.whole(length) != length:
            length += 1
        return length

    def suits(self, other: "Granularity") -> bool:
        """Whether all its numbers of rows are such of the other's as well."""
        return all(other.whole(n) == n for n in map(self.whole, range(1, 2 * _BLOCK + 2)))

    @property
    def padding(self) -> int:
        """Rows that a pass may have to be filled up with, at most."""
        return max(self.whole(n) - n for n in range(1, 2 * _BLOCK + 2))

    def steps(self, n: int) -> NDArray[np.int_]:
        """`whole` of 0, 1, ... n - 1, [n]; a pass without rows is none. Not to be changed."""
        return _steps(self, n)


@cache
def _steps(granularity: Granularity, n: int) -> NDArray[np.int_]:
    """Asked for in every round."""
    return np.array([0, *map(granularity.whole, range(1, n))])
