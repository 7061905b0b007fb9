"""How fast the disk is, as measured while it reads."""

_FADE = 0.99  # per read


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
