"""How fast the disk is, as measured while it reads."""

import numpy as np
from numpy.typing import NDArray

_FADE = 0.99  # per read
_FADE_PASS = 0.95
_DOUBT = 0.05  # relative variance of bytes that a slope of its own is worth
_STEEPEST = 4.0  # times the mean's


class ReadSpeed:
    """Seconds that reading a byte takes, over recent reads; older ones fade. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._busy_s = self._bytes = 0.0
        self._busy_from = 0.0

    def start(self, now: float) -> None:
        """The disk had nothing to do until now."""
        self._busy_from = now

    def finish(self, now: float, n_bytes: int) -> None:
        """A read has ended; the disk goes on with what else it was asked for."""
        self._busy_s = self._busy_s * _FADE + now - self._busy_from
        self._bytes = self._bytes * _FADE + n_bytes
        self._busy_from = now

    @property
    def byte_seconds(self) -> float:
        """0 before the first read."""
        return self._busy_s / self._bytes if self._bytes else 0.0


class PassReads:
    """Seconds that passes wait for what they read, by its bytes: a line through recent passes, older ones fade.

    A disk that serves at once what it could have while it was idle, as a limited one in a container or a cloud does,
    lets the first bytes of a pass wait for nothing and further ones for all of their time. Others let each read wait
    longer than its bytes take. The mean tells of neither.
    """

    def __init__(self) -> None:
        self._sums = np.zeros(5)  # weights, bytes, seconds, bytes squared, bytes times seconds

    def add(self, n_bytes: float, seconds: float) -> None:
        """A pass read so many bytes, and waited so long."""
        self._sums = _FADE_PASS * self._sums + np.array([1.0, n_bytes, seconds, n_bytes**2, n_bytes * seconds])

    def seconds(self, n_bytes: NDArray[np.float64], byte_s: float) -> NDArray[np.float64]:
        """Expected of passes that read ``n_bytes``, [n]; ``byte_s`` a byte as long as there was no pass."""
        weight = self._sums[0]
        if self._sums[1] == 0:
            return byte_s * n_bytes
        x, y, xx, xy = self._sums[1:] / weight
        mean, doubt = y / x, _DOUBT * x * x
        slope = (xy - x * y + doubt * mean) / (xx - x * x + doubt)
        slope = min(max(slope, 0.0), _STEEPEST * mean)
        return np.asarray(np.maximum(y + slope * (n_bytes - x), 0.0))
