"""How many threads to compute with: as many as there are fast, idle cores for this process."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from cadcpp.system.control_groups import control_groups, read_number
from cadcpp.system.cpu_load import CpuLoad, allowed_cpus

_CPUS = "sys/devices/system/cpu"
# What tells how fast a core is, the more telling first, and from which share of the fastest on one is fast itself: the
# kernel's own measure, or the highest clock, by which a core that does less in a cycle looks faster than it is.
_SPEEDS = (("cpu_capacity", 0.5), ("cpufreq/cpuinfo_max_freq", 0.8))
_WHOLE = 0.75  # of a core in use leaves no thread's worth of it


@dataclass(frozen=True, slots=True)
class Threads:
    """How many, and why not more."""

    n: int
    why: str

    def at_most(self, n: int, why: str) -> "Threads":
        """This, or ``n`` if that is less; one thread there is in any case."""
        return self if n >= self.n else Threads(max(n, 1), why)


def choose_threads(
    root: Path = Path("/"), cpus: Collection[int] | None = None, busy: float | None = None, load: CpuLoad | None = None
) -> Threads:
    """The number of threads that is fastest by default.

    ``cpus`` are those that this process may run on, ``busy`` how many of them others use; both are looked up
    otherwise, which takes a moment, unless ``load`` has been looking for a while. ``root`` is where /proc and /sys are.
    """
    cpus = sorted(allowed_cpus() if cpus is None else cpus)
    found = most_threads(root, cpus)
    if found.n == 1:  # nothing that others do makes it less
        return found
    busy = (load or CpuLoad(cpus, root)).busy() if busy is None else busy
    return found.at_most(left_by(busy, len(cpus)), f"other programs keep {busy:.1f} of {len(cpus)} cores busy")


def most_threads(root: Path = Path("/"), cpus: Collection[int] | None = None) -> Threads:
    """The number of threads that is fastest as long as no other program computes."""
    cpus = sorted(allowed_cpus() if cpus is None else cpus)
    cores = _cores(cpus, root)
    found = Threads(len(cores), "one per core")
    fast = _fast(cores, root)
    found = found.at_most(len(fast), f"the fast ones of {len(cores)} cores")
    quota = cpu_quota(root)
    if quota is None:
        return found
    return found.at_most(int(quota), f"a control group's quota is {quota:.3g} of {len(cpus)} cores")


def left_by(busy: float, n_cpus: int) -> int:
    """How many of so many CPUs are left for threads where others keep some busy; one in any case."""
    return max(n_cpus - int(busy + 1 - _WHOLE), 1)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that control groups allow; None if they set no limit."""
    shares = [_share(version, group) for version, group in control_groups("cpu", root)]
    return min((share for share in shares if share is not None), default=None)


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
