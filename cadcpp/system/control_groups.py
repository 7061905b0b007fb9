"""The control groups above this process, of version 1 and 2."""

from collections.abc import Iterator
from pathlib import Path


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """Version and folder of each group that a controller may have settings in, the innermost first."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            version, base = 1, _mounted(root / "sys/fs/cgroup", controller, controllers)
        elif not controllers:
            version, base = 2, root / "sys/fs/cgroup"
        else:
            continue
        group = base / path.lstrip("/")
        for level in (group, *group.parents):
            if level == base.parent:
                break
            yield version, level


def read_number(path: Path) -> int | None:
    """The number in a file; None if there is no such file, or "max" in it."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _mounted(base: Path, controller: str, controllers: str) -> Path:
    """Where a controller of version 1 is mounted: under its own name, or with others (`cpu,cpuacct`)."""
    together = base / controllers
    return together if together.is_dir() else base / controller
