"""What a process holds: memory, objects, handles and threads; and whether any of it grows."""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil

_WARM = 0.25  # share of the snapshots after which nothing may grow
_SETTLED = 20  # snapshots after which the holes between Python's objects should be as many as they will be
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Resources:
    """What this process holds at one time.

    ``own`` are bytes in memory that no file backs; allocators keep some that nobody uses. ``used`` are those in use, as
    the C library counts them (0 where it does not), and ``objects`` the blocks that Python uses beside them.
    """

    at_s: float
    rss: int
    own: int
    used: int
    objects: int
    handles: int
    threads: int

    @classmethod
    def now(cls, at_s: float) -> "Resources":
        process = psutil.Process()
        memory = process.memory_info()
        own = memory.rss - getattr(memory, "shared", 0)
        handles, threads = process.num_fds(), process.num_threads()
        return cls(at_s, memory.rss, own, used_bytes(), sys.getallocatedblocks(), handles, threads)


class _MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2: ten counts, of which the fifth are mapped bytes and the eighth others in use."""

    _fields_ = [("counts", ctypes.c_size_t * 10)]


def used_bytes() -> int:
    """Bytes that were allocated and not freed, in any thread; 0 without glibc."""
    info = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if info is None:
        return 0
    info.restype = _MallInfo
    counts = info().counts
    return int(counts[4] + counts[7])


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceGrowth:
    """How what a process holds changes after the first quarter of the snapshots."""

    own_mb: tuple[float, float] = (0.0, 0.0)  # first and last
    used_mb: tuple[float, float] = (0.0, 0.0)
    objects: tuple[int, int] = (0, 0)
    mb_per_hour: float = 0.0  # of own memory, by a straight line
    mb_per_hour_error: float = 0.0  # one standard error
    handles: tuple[int, int] = (0, 0)
    threads: tuple[int, int] = (0, 0)
    faults: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, held: Sequence[Resources]) -> "ResourceGrowth":
        """From snapshots; fewer than six of them tell of no growth."""
        settled, held = held[_SETTLED:], held[int(_WARM * len(held)) :]
        if not held:
            return cls()
        slope, error = _line(held, "own")
        wrong = {
            "memory in use grows": _grows(held, "used", _MIB),
            "objects grow": _grows(held, "objects", 10_000),
            "memory grows": _grows(settled if held[0].used else held, "own", 4 * _MIB),
            "handles grow": _rises([each.handles for each in held]),
            "threads grow": _rises([each.threads for each in held]),
        }
        return cls(
            own_mb=(round(held[0].own / 1e6, 1), round(held[-1].own / 1e6, 1)),
            used_mb=(round(held[0].used / 1e6, 1), round(held[-1].used / 1e6, 1)),
            objects=(held[0].objects, held[-1].objects),
            mb_per_hour=round(slope * 3600 / 1e6, 2),
            mb_per_hour_error=round(error * 3600 / 1e6, 2),
            handles=(held[0].handles, held[-1].handles),
            threads=(held[0].threads, held[-1].threads),
            faults=[what for what, true in wrong.items() if true],
        )


def _grows(held: Sequence[Resources], what: str, least: float) -> bool:
    """Whether a straight line says so, beyond doubt, and by more than ``least`` in all."""
    slope, error = _line(held, what)
    return slope > 3 * error and slope * (held[-1].at_s - held[0].at_s) > least


def _line(held: Sequence[Resources], what: str) -> tuple[float, float]:
    """Slope of the straight line through what was held at each time, per second, and its standard error."""
    if len(held) < 6:  # which tell of no growth
        return 0.0, 0.0
    times = np.array([each.at_s for each in held])
    x, y = times - times.mean(), np.array([getattr(each, what) for each in held], float)
    slope, base = np.polyfit(x, y, 1)
    rest = y - base - slope * x
    return float(slope), float(np.sqrt(np.sum(rest**2) / (len(x) - 2) / np.sum(x**2)))


def _rises(counts: Sequence[int]) -> bool:
    """Whether a count is never again as low as it once was at most; some come and go."""
    third = len(counts) // 3
    return third > 1 and min(counts[-third:]) > max(counts[:third])
