"""How fast the disk under a file is, measured on the file itself."""

import os
import time
from pathlib import Path

_STEP = 4 << 20
_READS = 4  # asked for at once, as the pager does


def disk_bytes_per_s(path: Path, seconds: float = 1.0) -> float:
    """Bytes per second of reading ``path`` from the disk in order, measured for about ``seconds``.

    Reads the end of the file, which a running model needs last, and forgets it before and after.
    """
    size = path.stat().st_size
    start = max(size - (2 << 30), 0) // _STEP * _STEP
    fd = os.open(path, os.O_RDONLY)
    try:
        _forget(fd, start, size - start)
        return _read(fd, start, size, seconds)
    finally:
        _forget(fd, start, size - start)
        os.close(fd)


def _read(fd: int, start: int, size: int, seconds: float) -> float:
    at, begin = start, time.perf_counter()
    while at < size and time.perf_counter() - begin < seconds:
        _ask(fd, at + _STEP * (_READS - 1), _STEP)
        at += len(os.pread(fd, _STEP, at))
    return (at - start) / max(time.perf_counter() - begin, 1e-6)


def _ask(fd: int, start: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, start, n_bytes, os.POSIX_FADV_WILLNEED)


def _forget(fd: int, start: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, start, n_bytes, os.POSIX_FADV_DONTNEED)
