"""What prints tables, read by somebody who has seen enough, as `head` has."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.program import run_program
from tests.support.rooms import ROOT, modules

LINES = ROOT / "bench" / "measured" / "report.jsonl"
PRINT = {
    "a table of the bench": ["bench.report.compare", LINES, LINES],
    "rooms": ["tests.support.rooms"],
    "the page of commands": ["cadcpp.cli.reference"],
    "a command": ["cadcpp", "models", "list"],
    "help of a command": ["cadcpp", "generate", "--help"],
}
MAIN = [path for path in modules("bench").values() if '__name__ == "__main__"' in path.read_text("utf-8")]


@pytest.mark.parametrize("unbuffered", [False, True], ids=["at its end", "at once"])
@pytest.mark.parametrize("command", PRINT.values(), ids=PRINT)
def test_a_program_whose_reader_has_gone_ends_without_a_word(command: list[str | Path], unbuffered: bool) -> None:
    switches = ["-u"] * unbuffered
    running = subprocess.Popen(
        [sys.executable, *switches, "-m", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert running.stdout is not None
    running.stdout.close()
    running.stdout = None
    assert running.communicate()[1] == "" and running.returncode == 1


@pytest.mark.parametrize("path", MAIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_program_of_the_bench_ends_as_the_others(path: Path) -> None:
    assert path.read_text("utf-8").endswith('if __name__ == "__main__":\n    run_program(main)\n')


def test_another_pipe_that_breaks_is_told() -> None:
    def program() -> None:
        raise BrokenPipeError("a worker's")

    with pytest.raises(BrokenPipeError, match="worker"):
        run_program(program)
