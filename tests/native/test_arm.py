"""Runs on emulated processors: what passed is kept, and what it said is in the table. None is emulated here."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.arm import outcome, processors, table
from tests.support.arm.__main__ import Task, work_off
from tests.support.arm.outcome import kept, run
from tests.support.arm.parts import CELLS, QUICK, WHOLE, Part
from tests.support.arm.processors import PROCESSORS, Processor

ROW = "| weights | a | b | c | d | e |\n| Q8_0 | any | - | x2/16 | x4 | 2+ |\n"


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's Python in place of an emulated one, in a project of one file."""
    monkeypatch.setattr(Processor, "python", lambda _: [sys.executable])
    monkeypatch.setattr(Processor, "environment", lambda _: {"PYTHONPATH": ""})
    monkeypatch.setattr(outcome, "PLACE", tmp_path / "kept")
    monkeypatch.setattr(outcome, "ROOT", tmp_path)
    (tmp_path / "cell.py").write_text(f"print({ROW!r})")


def work(task: Task, *, again: bool = False) -> list[int]:
    return work_off([task], again=again, n_jobs=1)


def part(code: int = 0) -> Part:
    return Part("part", ("-c", f"open('runs', 'a').write('x'); exit({code})"), ("cell.py",))


@pytest.fixture
def runs(tmp_path: Path) -> Callable[[], int]:
    return lambda: len((tmp_path / "runs").read_text())


def test_what_passed_is_run_again_only_if_asked_for_or_if_its_files_change(
    tmp_path: Path, runs: Callable[[], int]
) -> None:
    task = PROCESSORS[0], part()
    assert work(task) == [0] and work(task) == [0] and runs() == 1
    work(task, again=True)
    assert runs() == 2
    (tmp_path / "cell.py").write_text("other")
    work(task)
    assert runs() == 3


def test_what_is_kept_is_of_one_processor() -> None:
    run(PROCESSORS[0], part())
    assert kept(PROCESSORS[0], part()) and not kept(PROCESSORS[1], part())


def test_what_failed_is_run_again_and_fails_again(runs: Callable[[], int]) -> None:
    task = PROCESSORS[0], part(code=3)
    assert [work(task), work(task)] == [[3], [3]] and runs() == 2


def test_the_table_has_what_parts_said_and_gaps_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = tuple(Part(name, ("cell.py",), ()) for name in ("q8_0", "q4_0"))
    monkeypatch.setattr(table, "CELLS", cells)
    run(PROCESSORS[1], cells[0])
    assert list(table.lines())[2:] == ["| Q8_0 |  | any, -; x2/16, x4, 2+ |  |  |", "| Q4_0 |  |  |  |  |"]


def test_parts_have_names_of_their_own_and_files_that_are_there() -> None:
    named = [*WHOLE, *QUICK[1:]]
    assert len({each.name for each in named}) == len(named) and set(CELLS) < set(WHOLE)
    root = Path(__file__).parents[2]
    assert all(list(root.glob(file)) for each in named for file in each.files)


def test_what_several_parts_need_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "PLACE", tmp_path)
    started, made = threading.Barrier(4), list[Path]()

    def make(part: Path) -> None:
        made.append(part)
        time.sleep(0.05)  # as long as it takes for the others to come
        part.mkdir()

    def need(_n: int) -> Path:
        started.wait()
        return processors._kept("system", make, "the same")

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(need, range(4)))) == 1
    assert len(made) == 1
