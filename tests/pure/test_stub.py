"""Stubs: where they are made, and what is said where they cannot be."""

import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cadcpp.errors import ModelError
from cadcpp.gguf.arrays import HEADER_BYTES, header_bytes
from cadcpp.gguf.header import Header, Part
from cadcpp.system import scratch_file, stub
from cadcpp.system.mapping import is_shareable, mappings, sharing
from cadcpp.system.scratch_file import ScratchFile, scratch_folders
from cadcpp.system.stub import Stub, foreseen_limits

if not sys.platform.startswith("linux"):
    pytest.skip("stubs are Linux's", allow_module_level=True)

HEADER, WHOLE = 3 << 20, 64 << 20


@pytest.fixture
def header(tmp_path: Path) -> Header:
    """Of a file that is a header and a hole."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"x" * HEADER)
    os.truncate(path, WHOLE)
    return Header(path, WHOLE, {}, (), (Part(path, WHOLE, HEADER),))


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files cannot be made in memory."""
    monkeypatch.delattr(os, "memfd_create")


def test_a_stub_is_made_in_memory_first(header: Header, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    (place, *_) = scratch_folders()
    assert place is None and foreseen_limits(header) == ""
    with closing(Stub(header, None)) as made:
        (path,) = made.paths
        assert path.stat().st_size == WHOLE and path.stat().st_blocks * 512 < HEADER + (1 << 20)
        with path.open("rb") as file:
            assert file.read(HEADER + 1) == b"x" * HEADER + b"\0"
    assert not path.exists()


def test_then_in_one_folder_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", "/mine")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    folders = ["/mine", "/tmp", "/var/tmp", "/models", "/run/user/1", "/dev/shm"]
    assert list(scratch_folders(Path("/models"))) == [None, *map(Path, folders)]


@pytest.mark.usefixtures("no_memory")
def test_a_folder_that_takes_no_file_is_passed_over(
    header: Header, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr(scratch_file, "_COMMON", ())
    assert foreseen_limits(header) == ""
    assert list(tmp_path.iterdir()) == [header.path]


@pytest.mark.usefixtures("no_memory")
def test_where_none_takes_it_one_line_names_them_all(header: Header, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub, "scratch_folders", lambda near: [None, Path("/nowhere"), Path("/proc")])
    said = foreseen_limits(header)
    assert said.startswith("loading reads all weights: no place takes 3 MiB of a file with holes (memory: ")
    assert "/nowhere: No such file or directory; /proc: " in said and "\n" not in said


def test_a_limit_on_file_sizes_is_named(header: Header) -> None:
    """A limit, unlike a folder without room, is the same in memory and everywhere else."""
    code = (
        "import sys; from pathlib import Path; from cadcpp.gguf.header import Header, Part;"
        "from cadcpp.system.stub import foreseen_limits; p = Path(sys.argv[1]); n = p.stat().st_size;"
        f"print(foreseen_limits(Header(p, n, {{}}, (), (Part(p, n, {HEADER}),))))"
    )
    enter: Callable[[], None] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # noqa: E731
    command = [sys.executable, "-c", code, str(header.path)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=enter, check=True)
    assert "memory: File too large; " in done.stdout and done.stdout.count("File too large") >= 3


def test_a_system_without_maps_says_so(header: Header, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub, "has_maps", lambda: False)
    assert "page faults" in foreseen_limits(header) and "/proc/self/maps" in foreseen_limits(header)


@pytest.mark.parametrize("renamed", ["/somewhere/else", "{}", "/host/root{}"])
def test_a_stub_s_mapping_is_found_whatever_its_path(
    header: Header, monkeypatch: pytest.MonkeyPatch, renamed: str
) -> None:
    """Under proot a path is another one to the kernel."""
    with closing(Stub(header, None)) as made, made.paths[0].open("rb") as file:
        with mmap.mmap(file.fileno(), WHOLE, access=mmap.ACCESS_READ) as data:
            renaming = [replace(found, path=renamed.format(found.path)) for found in mappings()]
            monkeypatch.setattr(stub, "mappings", lambda: renaming)
            (segment,) = made.remap() or []
            assert (segment.start, segment.stop) == (0, WHOLE)
            assert any(found.path == str(header.path) for found in mappings()) and data[:2] == b"xx"


def test_a_mapping_that_is_not_found_changes_nothing(header: Header) -> None:
    with closing(Stub(header, None)) as made:
        assert made.remap() is None


def test_a_scratch_file_is_gone_when_it_is_closed(tmp_path: Path) -> None:
    with closing(ScratchFile(tmp_path)) as file:
        assert list(tmp_path.iterdir()) == [file.path]
    assert list(tmp_path.iterdir()) == []


def test_a_file_on_an_ordinary_disk_is_mapped_shared(header: Header) -> None:
    assert sharing(header.path) == mmap.MAP_SHARED


def test_a_file_that_cannot_be_mapped_at_all_names_its_mount() -> None:
    with pytest.raises(ModelError, match=r"/proc/cpuinfo cannot be mapped: .*; copy it from /proc to a disk"):
        sharing(Path("/proc/cpuinfo"))
    assert not is_shareable(Path("/proc/cpuinfo"))


def test_a_header_is_read_where_it_cannot_be_mapped(header: Header, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(fd: int, n: int, **access: int) -> mmap.mmap:
        if fd >= 0:
            raise OSError(19, "No such device")
        return real(fd, n)

    real = mmap.mmap
    monkeypatch.setattr(mmap, "mmap", refuses)
    with header_bytes(header.path) as data:
        assert len(data) == HEADER_BYTES and data[: HEADER + 1] == b"x" * HEADER + b"\0"
