"""What other programs compute meanwhile."""

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

_SAMPLE_S = 0.2  # of what others compute, at least
_NANO = 1e-9


class CpuLoad:
    """How many of some CPUs others keep busy, from one look to the next; processes that give way (nice) left out."""

    def __init__(self, cpus: Collection[int] | None = None, root: Path = Path("/")) -> None:
        """The first look, at the CPUs that this process may run on. ``root`` is where /proc is."""
        self._cpus, self._root = allowed_cpus() if cpus is None else cpus, root
        self._seen = self._look()

    @property
    def n_cpus(self) -> int:
        return len(self._cpus)

    @property
    def seconds(self) -> float:
        """Since the last look."""
        return time.perf_counter() - self._seen[0]

    def busy(self) -> float:
        """How many CPUs others have kept busy since the last look, and would have if this process had not been there.

        0 where nobody tells. It sleeps as long as there is too little to look at.
        """
        time.sleep(max(_SAMPLE_S - self.seconds, 0.0))
        before, self._seen = self._seen, self._look()
        seconds, used, own, waited = (new - old for new, old in zip(self._seen, before, strict=True))
        others = min(max((used - own) / seconds, 0.0), len(self._cpus))
        # Whoever shares a core with one of our threads would use as much more of it as that thread waits. Our threads
        # wait for each other too.
        return min(others + min(max(waited / seconds, 0.0), others), len(self._cpus))

    def _look(self) -> tuple[float, float, float, float]:
        """Seconds: a clock, what anybody has used of the CPUs, what we have used, and how long we have waited."""
        used = _used_seconds(self._cpus, self._root)
        own = _own_seconds() if used is not None else 0.0
        return time.perf_counter(), used or 0.0, own, sum(_waited_seconds(self._root))


def allowed_cpus() -> Collection[int]:
    """Those that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _used_seconds(cpus: Collection[int], root: Path) -> float | None:
    """Time that these CPUs have computed for anybody, since the system started; None where nobody tells (Android)."""
    names, ticks = {f"cpu{cpu}" for cpu in cpus}, 0
    try:
        with (root / "proc/stat").open() as lines:
            for line in lines:
                if not line.startswith("cpu"):
                    break  # what follows is long where there are many interrupts
                name, *fields = line.split()
                if name in names:
                    user, _nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
                    ticks += user + system + irq + softirq
    except (OSError, ValueError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    own = os.times()
    return own.user + own.system


def _waited_seconds(root: Path) -> Iterator[float]:
    """How long each thread of this process was ready and had no CPU; nothing where the kernel does not count that."""
    with suppress(OSError):
        for thread in (root / "proc/self/task").iterdir():
            with suppress(OSError, ValueError, IndexError):  # it may have ended
                yield int((thread / "schedstat").read_text().split()[1]) * _NANO
