"""How much memory this process may use: control groups, the device, and the limit on locking."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from cadcpp.system.control_groups import control_groups, read_number

_MARGIN = 16 << 20  # which others may want before anybody looks again
_NO_LIMIT = 1 << 60  # cgroup v1 writes "none" as a huge number
# Limits and usage, by a control group's version. Above "high" nobody is killed, but everybody is slowed down.
_FILES = {
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes"),
    2: (("memory.max", "memory.high"), "memory.current"),
}
_CAP_IPC_LOCK = 14  # a capability's bit


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


def lockable_bytes(root: Path = Path("/")) -> int:
    """How much this process may mlock."""
    if sys.platform not in ("linux", "android"):
        return 0
    import resource

    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return _NO_LIMIT if soft == resource.RLIM_INFINITY or _ignores_lock_limit(root) else soft


def _ignores_lock_limit(root: Path) -> bool:
    """Whether the limit is not this process's: root has that right by a capability, and in many containers has not.

    In a user namespace the capability counts for nothing; its ids are not those of the whole system.
    """
    with contextlib.suppress(OSError, ValueError):
        effective = int(_told(root / "proc/self/status", b"CapEff:") or "0", 16)
        ids = (root / "proc/self/uid_map").read_text().split()
        return bool(effective >> _CAP_IPC_LOCK & 1) and ids == ["0", "0", str(2**32 - 1)]
    return False


def peak_bytes() -> int:
    """Largest resident set of this process so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if (kib := _told("/proc/self/status", b"VmHWM:")) is not None:
        return 1024 * int(kib)  # getrusage would count what the parent held when it forked
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_bytes() -> int:
    """Bytes that this process has fetched from storage, page faults included; 0 where nobody counts."""
    if (found := _told("/proc/self/io", b"read_bytes:")) is not None:
        return int(found)
    process = psutil.Process()
    return int(process.io_counters().read_bytes) if hasattr(process, "io_counters") else 0


def _told(path: str | Path, name: bytes) -> str | None:
    """What Linux tells of this process under a name. It is read after every pass, so directly."""
    with contextlib.suppress(OSError, StopIteration), open(path, "rb") as lines:
        return next(line for line in lines if line.startswith(name)).split()[1].decode()
    return None


def _group_rooms(root: Path) -> Iterator[int]:
    """What each control group above this process leaves; the smallest of nested groups counts."""
    for version, group in control_groups("memory", root):
        limits, usage = _FILES[version]
        found = [n for limit in limits if (n := read_number(group / limit)) is not None and n < _NO_LIMIT]
        if found:
            used = read_number(group / usage) or 0
            yield min(found) - used + _reclaimable(group)


def _reclaimable(group: Path) -> int:
    """Bytes of page cache in a group."""
    try:
        fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    prefix = "total_" if "total_inactive_file" in fields else ""
    return int(fields.get(prefix + "inactive_file", 0)) + int(fields.get(prefix + "active_file", 0))
