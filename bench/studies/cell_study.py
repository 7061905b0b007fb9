"""A study of cells of its own: measured one after another, going on where it was ended, and told in tables."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.matrix.cell import Cell
from bench.matrix.grid import Section
from bench.matrix.runner import run
from bench.measure.record import RESULTS
from bench.measure.results import Run, load

_DAY = 24 * 60.0  # minutes: no limit


def study(
    module: str,
    about: str | None,
    key: str,
    cells: Callable[[], Iterable[Cell]],
    report: Callable[[Run], Iterable[str]],
) -> None:
    """The command of a module that is a study; its records go to bench/results, under ``key``."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--show", action="store_true", help="what is there")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / f"{key}.jsonl", help="of the JSON lines")
    options = parser.parse_args()
    if not options.show:
        section = Section(key, "", 60 * _DAY, tuple(cells()))
        run(options.output, [section], {"tokens": None, "minutes": _DAY})
    text = "\n".join(report(load(options.output)))
    options.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)
