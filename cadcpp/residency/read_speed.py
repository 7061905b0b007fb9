"""How fast the disk is, as measured while it reads."""

import numpy as np
from numpy.typing import NDArray

from cadcpp.util.fading_line import FadingLine

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
        self._line = FadingLine()  # of seconds by bytes

    def add(self, n_bytes: float, seconds: float) -> None:
        """A pass read so many bytes, and waited so long."""
        self._line.fade(_FADE_PASS)
        self._line.add(float(n_bytes), seconds)

    def seconds(self, n_bytes: NDArray[np.float64], byte_s: float) -> NDArray[np.float64]:
        """Expected of passes that read ``n_bytes``, [n]; ``byte_s`` a byte as long as there was no pass."""
        x, y = self._line.mean
        if x == 0:
            return byte_s * n_bytes
        slope = min(max(self._line.slope(_DOUBT * x * x, y / x), 0.0), _STEEPEST * y / x)
        return np.asarray(np.maximum(y + slope * (n_bytes - x), 0.0))
