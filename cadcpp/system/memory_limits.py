"""How much memory this process may use: control groups, the device, and the limit on locking."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

_MARGIN = 16 << 20  # which others may want before anybody looks again
_NO_LIMIT = 1 << 60  # cgroup v1 writes "none" as a huge number


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that this process may have in all, its own included: the smallest of all limits that apply.

    Page cache counts as free, since the kernel gives it up. ``root`` is where /proc and /sys are.
    """
    return max(resident_bytes() + spare_bytes(root), 0)


def spare_bytes(root: Path = Path("/")) -> int:
    """Memory that can still be had, page cache included unless it is locked: the least that any limit leaves.

    Negative where a limit was lowered beneath what is in use.
    """
    return int(min([psutil.virtual_memory().available, *_group_rooms(root)]))


def is_limited(root: Path = Path("/")) -> bool:
    """Whether a control group limits the memory of this process."""
    return any(True for _ in _group_rooms(root))


def give_back(spare: int, unlocked: int, window: int, evicted: int) -> int:
    """How many bytes of what is to stay in memory must be streamed instead, ``evicted`` having been until now.

    Of what is ``spare``, the kernel may take the ``unlocked`` bytes that stay; they and the window have to fit,
    with a margin. What was evicted is taken again by halves when there is clearly room.
    """
    short = unlocked + window + _MARGIN - spare
    if short > 0:
        return evicted + short
    return evicted if -short < 2 * _MARGIN else max(evicted + short // 2, 0)


def resident_bytes() -> int:
    """Resident set of this process."""
    return int(psutil.Process().memory_info().rss)


def lockable_bytes() -> int:
    """How much this process may mlock."""
    if sys.platform not in ("linux", "android"):
        return 0
    import resource

    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    unlimited = soft == resource.RLIM_INFINITY or os.geteuid() == 0
    return _NO_LIMIT if unlimited else soft


def peak_bytes() -> int:
    """Largest resident set of this process so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if (kib := _counter("/proc/self/status", b"VmHWM:")) is not None:
        return 1024 * kib  # getrusage would count what the parent held when it forked
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_bytes() -> int:
    """Bytes that this process has fetched from storage, page faults included; 0 where nobody counts."""
    if (found := _counter("/proc/self/io", b"read_bytes:")) is not None:
        return found
    process = psutil.Process()
    return int(process.io_counters().read_bytes) if hasattr(process, "io_counters") else 0


def _counter(path: str, name: bytes) -> int | None:
    """A number that Linux keeps of this process. It is read after every pass, so directly."""
    with contextlib.suppress(OSError, StopIteration), open(path, "rb") as lines:
        return int(next(line for line in lines if line.startswith(name)).split()[1])
    return None


def _group_rooms(root: Path) -> Iterator[int]:
    """What each control group above this process leaves; the smallest of nested groups counts."""
    for group, limits, usage in _groups(root):
        found = [n for limit in limits if (n := _read_int(group / limit)) is not None and n < _NO_LIMIT]
        if found:
            used = _read_int(group / usage) or 0
            yield min(found) - used + _reclaimable(group)


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, ...], str]]:
    """Each control group above this process, with the names of its limits and of what it uses."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    limits: tuple[str, ...]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            base, limits, usage = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes",), "memory.usage_in_bytes"
        elif not controllers:
            # Above "high" nobody is killed, but everybody is slowed down.
            base, limits, usage = root / "sys/fs/cgroup", ("memory.max", "memory.high"), "memory.current"
        else:
            continue
        group = base / path.lstrip("/")
        for level in (group, *group.parents):
            if level == base.parent:
                break
            yield level, limits, usage


def _reclaimable(group: Path) -> int:
    """Bytes of page cache in a group."""
    try:
        fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    prefix = "total_" if "total_inactive_file" in fields else ""
    return int(fields.get(prefix + "inactive_file", 0)) + int(fields.get(prefix + "active_file", 0))


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group here, or "max"
        return None
