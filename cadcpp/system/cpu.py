"""How many threads to compute with: as many as there are fast, idle cores for this process."""

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from cadcpp.system.control_groups import control_groups, read_number

_CPUS = "sys/devices/system/cpu"
# What tells how fast a core is, the more telling first, and from which share of the fastest on one is fast itself: the
# kernel's own measure, or the highest clock, by which a core that does less in a cycle looks faster than it is.
_SPEEDS = (("cpu_capacity", 0.5), ("cpufreq/cpuinfo_max_freq", 0.8))
_SAMPLE_S = 0.2  # of what others compute
_WHOLE = 0.75  # of a core in use leaves no thread's worth of it


@dataclass(frozen=True, slots=True)
class Threads:
    """How many, and why not more."""

    n: int
    why: str

    def at_most(self, n: int, why: str) -> "Threads":
        """This, or ``n`` if that is less; one thread there is in any case."""
        return self if n >= self.n else Threads(max(n, 1), why)


def choose_threads(root: Path = Path("/"), cpus: Collection[int] | None = None, busy: float | None = None) -> Threads:
    """The number of threads that is fastest by default.

    ``cpus`` are those that this process may run on, ``busy`` how many of them others use; both are looked up
    otherwise, which takes a moment. ``root`` is where /proc and /sys are.
    """
    cpus = sorted(_allowed() if cpus is None else cpus)
    cores = _cores(cpus, root)
    found = Threads(len(cores), "one per core")
    fast = _fast(cores, root)
    found = found.at_most(len(fast), f"the fast ones of {len(cores)} cores")
    quota = cpu_quota(root)
    if quota is not None:
        found = found.at_most(int(quota), f"a control group's quota is {quota:.3g} of {len(cpus)} cores")
    if found.n == 1:  # nothing that others do makes it less
        return found
    busy = busy_cpus(cpus, root) if busy is None else busy
    idle = len(cpus) - int(busy + 1 - _WHOLE)
    return found.at_most(idle, f"other programs keep {busy:.1f} of {len(cpus)} cores busy")


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that control groups allow; None if they set no limit."""
    shares = [_share(version, group) for version, group in control_groups("cpu", root)]
    return min((share for share in shares if share is not None), default=None)


def busy_cpus(cpus: Collection[int], root: Path = Path("/"), seconds: float = _SAMPLE_S) -> float:
    """How many of these CPUs other processes use, those that give way (nice) left out; 0 where nobody tells."""
    used, own, start = _used_seconds(cpus, root), _own_seconds(), time.perf_counter()
    if used is None:  # as on Android
        return 0.0
    time.sleep(seconds)
    used_since = (_used_seconds(cpus, root) or used) - used - (_own_seconds() - own)
    return min(max(used_since / (time.perf_counter() - start), 0.0), len(cpus))


def _allowed() -> Collection[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _cores(cpus: Collection[int], root: Path) -> list[int]:
    """One CPU of each core: hyper-threads share what computes."""
    first: dict[tuple[int | None, ...], int] = {}
    for cpu in cpus:
        folder = root / _CPUS / f"cpu{cpu}" / "topology"
        core = tuple(read_number(folder / name) for name in ("physical_package_id", "core_id"))
        first.setdefault(core if None not in core else (cpu,), cpu)
    cores = list(first.values())
    if len(cores) < len(cpus) or root != Path("/"):
        return cores
    return cores[: psutil.cpu_count(logical=False) or len(cores)]  # where /sys is not to be seen


def _fast(cores: list[int], root: Path) -> list[int]:
    """Those that do not hold the others up."""
    for name, share in _SPEEDS:
        speeds = {cpu: read_number(root / _CPUS / f"cpu{cpu}" / name) for cpu in cores}
        known = [speed for speed in speeds.values() if speed]
        if len(known) == len(cores):
            return [cpu for cpu in cores if (speeds[cpu] or 0) >= share * max(known)]
    return cores


def _share(version: int, group: Path) -> float | None:
    """Cores' worth of time of one group."""
    if version == 1:
        quota, period = (read_number(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    else:
        quota, period = _read_max(group / "cpu.max")
    return quota / period if quota is not None and quota > 0 and period else None


def _read_max(path: Path) -> tuple[int | None, int | None]:
    try:
        quota, period = path.read_text().split()
        return int(quota), int(period)
    except (OSError, ValueError):  # no such group here, or "max"
        return None, None


def _used_seconds(cpus: Collection[int], root: Path) -> float | None:
    """Time that these CPUs have computed for anybody, since the system started."""
    names, ticks = {f"cpu{cpu}" for cpu in cpus}, 0
    try:
        lines = (root / "proc/stat").read_text().splitlines()
        for name, *fields in (line.split() for line in lines):
            if name in names:
                user, _nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
                ticks += user + system + irq + softirq
    except (OSError, ValueError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    own = os.times()
    return own.user + own.system
