"""A memory limit and a disk speed (cgroup) for one command, and exact counters of what it used.

Root makes the control group (v1 or v2); without rights `systemd-run --user` is the way, or none.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 50  # bytes a second, which no disk has


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run used; bytes and seconds."""

    seconds: float
    read_bytes: int  # fetched from the disk by the whole group
    peak_bytes: int  # largest memory of the whole group, page cache included
    killed: bool  # by the out-of-memory killer


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for a command; None is no limit."""

    ram_bytes: int | None = None
    disk_bytes_per_s: int | None = None
    name: str = "cadcpp-wall"  # of the control group

    @contextlib.contextmanager
    def groups(self, disk: Path) -> Iterator[Callable[[], None]]:
        """Inside the control groups exist; a new process enters them by calling what this yields."""
        with _groups(self, _device(disk)) as groups:
            yield lambda: _enter(groups)

    def run(
        self, command: list[str], disk: Path, timeout_s: float | None = None
    ) -> tuple[subprocess.CompletedProcess[str], Usage]:
        """Run ``command`` within the limits, with cold caches; ``disk`` is a file on the throttled disk.

        Without the rights to set limits the command runs without any, and nothing is counted. Raises
        subprocess.TimeoutExpired if it takes longer than ``timeout_s``.
        """
        if why_not():
            done, seconds = _timed(command, timeout_s)
            return done, Usage(seconds, 0, 0, False)
        device = _device(disk)
        with _groups(self, device) as groups:
            drop_caches()
            done, seconds = _timed(command, timeout_s, lambda: _enter(groups))
            return done, Usage(seconds, _read(groups, device), _peak(groups), done.returncode == -9)


def _timed(
    command: list[str], timeout_s: float | None, enter: Callable[[], None] | None = None
) -> tuple[subprocess.CompletedProcess[str], float]:
    """A run, and the seconds that it took. Each system chooses its kernels itself."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GGML_CPU_TILED_MM")}
    start = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, env=own, preexec_fn=enter, check=False, timeout=timeout_s
    )
    return done, time.perf_counter() - start


def drop_caches() -> None:
    """Forget the page cache, so that every run starts cold; needs root."""
    os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")


def why_not() -> str | None:
    """Why no limit can be set here, or None."""
    if os.geteuid() != 0:
        return "control groups need root; as a user: systemd-run --user --scope -p MemoryMax=... "
    if not (_v1() or _v2()):
        return "no control groups under /sys/fs/cgroup"
    return None


def _v1() -> bool:
    return (_ROOT / "memory").is_dir() and (_ROOT / "blkio").is_dir()


def _v2() -> bool:
    return (_ROOT / "cgroup.controllers").is_file()


@contextlib.contextmanager
def _groups(limits: Limits, device: str) -> Iterator[list[Path]]:
    groups = [_ROOT / kind / limits.name for kind in ("memory", "blkio")] if _v1() else [_ROOT / limits.name]
    for group in groups:
        if group.exists():  # of a bench that was killed; its limits must not live on
            _remove(group)
        group.mkdir(exist_ok=True)
    try:
        (_limit_v1 if _v1() else _limit_v2)(limits, device, groups)
        yield groups
    finally:
        for group in groups:
            _remove(group)


def _limit_v1(limits: Limits, device: str, groups: list[Path]) -> None:
    memory, blkio = groups
    if limits.ram_bytes:
        (memory / "memory.limit_in_bytes").write_text(str(limits.ram_bytes))
        (memory / "memory.max_usage_in_bytes").write_text("0")
    # Some kernels count what a group reads only where there is a limit.
    (blkio / "blkio.throttle.read_bps_device").write_text(f"{device} {limits.disk_bytes_per_s or _NO_LIMIT}")


def _limit_v2(limits: Limits, device: str, groups: list[Path]) -> None:
    (group,) = groups
    (_ROOT / "cgroup.subtree_control").write_text("+memory +io")
    if limits.ram_bytes:
        (group / "memory.max").write_text(str(limits.ram_bytes))
        (group / "memory.swap.max").write_text("0")
    if limits.disk_bytes_per_s:
        (group / "io.max").write_text(f"{device} rbps={limits.disk_bytes_per_s}")


def _enter(groups: list[Path]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text(str(os.getpid()))


def _remove(group: Path) -> None:
    for _ in range(50):
        try:
            group.rmdir()
            return
        except OSError:  # the kernel is still taking the last process out
            time.sleep(0.1)


def _read(groups: list[Path], device: str) -> int:
    path = groups[-1] / ("blkio.throttle.io_service_bytes" if _v1() else "io.stat")
    for line in path.read_text().splitlines():
        fields = line.split()
        if fields and fields[0] == device:
            if _v1() and fields[1] == "Read":
                return int(fields[2])
            if not _v1():
                return int(dict(f.split("=") for f in fields[1:])["rbytes"])
    return 0


def _peak(groups: list[Path]) -> int:
    path = groups[0] / ("memory.max_usage_in_bytes" if _v1() else "memory.peak")
    return int(path.read_text()) if path.exists() else 0


def read_ahead_kb(file: Path) -> int:
    """What the kernel reads around a page fault, at most, on the disk that holds a file."""
    return int((_disk(file) / "queue" / "read_ahead_kb").read_text())


def _device(file: Path) -> str:
    """MAJ:MIN of the whole disk that holds a file."""
    return (_disk(file) / "dev").read_text().strip()


def _disk(file: Path) -> Path:
    """The whole disk that holds a file, in sysfs."""
    number = os.stat(file).st_dev
    node = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    return node.parent if (node / "partition").exists() else node
