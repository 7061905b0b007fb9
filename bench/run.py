"""The whole bench: every section's cells in turn, a JSON line each, then the report.

    python -m bench.run                     everything, in under an hour
    python -m bench.run --quick             a part of it, in under ten minutes
    python -m bench.run ablation sweep      some sections

First every cell runs once, then those that are short run again while time is left. A run that was ended goes on with
the same command; one that was done is moved aside, and a new one begins.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.matrix import models
from bench.matrix.cell import Cell
from bench.matrix.grid import Section, sections
from bench.measure import energy, record
from bench.measure.results import MEASURED, load
from bench.report import build
from cadcpp.errors import CadError

MINUTES, QUICK_MINUTES = 58.0, 9.0
Done = set[tuple[str, int]]  # ids and turns


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(s.key for s in sections()))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, help="that it may take in all")
    parser.add_argument("--tokens", type=int, help="in every cell at most, to try things out")
    parser.add_argument("-o", "--output", type=Path, help="of the JSON lines")
    options = parser.parse_args()
    if unknown := set(options.sections) - {s.key for s in sections()}:
        parser.error(f"unknown {sorted(unknown)}; sections are {[s.key for s in sections()]}")
    minutes = options.minutes or (QUICK_MINUTES if options.quick else MINUTES)
    wanted = [s for s in sections(options.quick, options.tokens) if not options.sections or s.key in options.sections]
    path = options.output or record.RESULTS / f"{name_of(options)}.jsonl"
    about = {"quick": options.quick, "tokens": options.tokens, "minutes": minutes}
    try:
        run(path, wanted, {**about, "sections": [s.key for s in wanted]})
    except KeyboardInterrupt:
        sys.exit(f"\nended; the same command goes on, and `python -m bench.report.build {path}` shows what is there")
    publish(path, whole=not (options.quick or options.sections or options.tokens or options.output))


def name_of(options: argparse.Namespace) -> str:
    return "quick" if options.quick else "-".join(["report", *options.sections])


def run(path: Path, wanted: list[Section], settings: dict[str, Any]) -> None:
    """Measure what ``path`` does not have yet."""
    start, done = time.monotonic(), begin(path, settings)
    limit = start + 60 * settings["minutes"]
    scale = 60 * settings["minutes"] / sum(s.seconds for s in wanted)
    deadline = start
    for section in wanted:
        deadline += section.seconds * scale
        measure(path, section.cells, 0, done, min(deadline, limit))
    most = max(cell.repeats for section in wanted for cell in section.cells)
    for turn in range(1, most):
        for section in wanted:
            again = [cell for cell in section.cells if cell.repeats > turn]
            measure(path, again, turn, done, limit - 20)
    write(path, {"ended": record.now(), "seconds": time.monotonic() - start})


def measure(path: Path, cells: Iterable[Cell], turn: int, done: Done, deadline: float) -> None:
    """One after another until the deadline; the systems of a workload follow each other."""
    cells = list(cells)
    large = {f for cell in cells for f in cell.files if _is_large(f) and not f.exists()}
    try:
        for i, cell in enumerate(cells):
            if (cell.id, turn) not in done:
                done.add((cell.id, turn))
                _measure_one(path, cell, turn, deadline)
            _delete(large - {f for other in cells[i + 1 :] for f in other.files})
    finally:
        _delete(large)


def _measure_one(path: Path, cell: Cell, turn: int, deadline: float) -> None:
    reason = cell.why_not() or ("no time was left" if time.monotonic() + cell.least_s > deadline else None)
    if reason and turn:
        return
    line = {"id": cell.id, "left_out": reason} if reason else run_one(cell)
    write(path, {"turn": turn, **line})
    print(_shown(cell, line), flush=True)


def run_one(cell: Cell) -> dict[str, Any]:
    try:
        return cell.run()
    except (CadError, OSError) as error:  # of the files it needs, or of the wall; the other cells go on
        return {"id": cell.id, "error": str(error)}


def _is_large(file: Path) -> bool:
    return any(models.verifier(size) == file and n > models.KEPT_BYTES for size, n in models.SIZES.items())


def _delete(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def begin(path: Path, settings: dict[str, Any]) -> Done:
    """What a run that was ended has measured already; a new file where there is none, or one that is done."""
    if path.exists():
        found = load(path)
        same = {"commit": record.commit(), "tokens": settings["tokens"]}
        if not found.ended and same.items() <= found.settings.items():
            return {(r["id"], r["turn"]) for r in found.records if not {"left_out", "error"} & set(r)}
        path.rename(path.with_name(f"{path.stem}-{found.settings.get('began', 'before').replace(':', '')}.jsonl"))
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {**record.host(), "processor": record.processor(), "versions": record.versions()}
    about = {"began": record.now(), "commit": record.commit(), **machine, "joules_from": energy.source()}
    write(path, {"run": {**about, **settings}})
    return set()


def write(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def publish(path: Path, *, whole: bool) -> None:
    """Only a whole run becomes the report of the project; of others the report lies beside the lines."""
    if whole:
        MEASURED.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, MEASURED)
        build.write(load(MEASURED), build.REPORT)
        return
    build.write(load(path), path.with_suffix(".md"))


def _shown(cell: Cell, line: dict[str, Any]) -> str:
    for key in ("left_out", "error"):
        if key in line:
            return f"{cell.id:<44} {key.replace('_', ' ')}: {line[key]}"
    seconds = f"{line['s_per_token']:8.3f} s/token" if "s_per_token" in line else ""
    return f"{cell.id:<44} {seconds:<16} {line['seconds']:6.1f} s in all"


if __name__ == "__main__":
    main()
