"""Files that exist whole or not at all."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cadcpp.errors import ToolError
from cadcpp.util.files import new_file, require_space, scratch_directory, sweep


def test_a_file_takes_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with new_file(path) as part:
        part.write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), new_file(path) as part:
        part.write_text("ha")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ToolError, match=r"^cannot write .*file/sub/x: Not a directory; choose [^\n]*$"):
        with new_file(tmp_path / "file" / "sub" / "x"):
            pass


def test_a_scratch_directory_is_gone_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_directory(tmp_path) as scratch:
        (scratch / "file").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_only_the_parts_of_dead_processes_are_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f"a.{dead.pid}.part", f"b.{os.getpid()}.part", "mine.part"):
        (tmp_path / name).touch()
    (tmp_path / f"scratch.{dead.pid}.part").mkdir()
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [f"b.{os.getpid()}.part", "mine.part"]


def test_too_little_room_is_told_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    with pytest.raises(ToolError, match=r"^not enough disk in .*new: 1.00 GB needed, 5.00 MB free; free some"):
        require_space(tmp_path / "new", 10**9)
