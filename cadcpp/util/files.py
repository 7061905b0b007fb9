"""Files that exist whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from cadcpp.errors import ToolError
from cadcpp.util.byte_size import format_size

_PART = re.compile(r".+\.([0-9]{1,10})\.part")


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """What the system says about ``path`` becomes one line with a remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or "the disk took only a part of it"  # numpy's short writes carry no code
        raise ToolError(f"cannot write {path}: {reason}; choose a directory that is writable and has room") from error


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which takes its name only when the block succeeds."""
    part = part_path(path)
    try:
        with reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            _flush(part)
            os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def scratch_directory(directory: Path) -> Iterator[Path]:
    """A new directory inside ``directory`` that is gone after the block."""
    scratch = part_path(directory / "scratch")
    try:
        with reported(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def part_path(path: Path) -> Path:
    """The temporary name of ``path``; the process id in it tells a running process from a dead one."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def sweep(directory: Path) -> None:
    """Remove what killed runs have left behind."""
    for path in directory.glob("*.part"):
        match = _PART.fullmatch(path.name)
        if match is None or psutil.pid_exists(int(match[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def require_space(directory: Path, needed_bytes: int) -> None:
    """Fail now, not after minutes of work, when the disk is too full."""
    existing = next(path for path in [directory, *directory.absolute().parents] if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise ToolError(
            f"not enough disk in {directory}: {format_size(needed_bytes)} needed, {format_size(free_bytes)} free;"
            " free some, or choose another directory or a smaller size"
        )


def _flush(path: Path) -> None:
    # Without it a power cut can leave the new name with no content, and some disks report "full" only here.
    with path.open("rb+") as file:
        os.fsync(file.fileno())
