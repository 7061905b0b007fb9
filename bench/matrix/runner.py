"""Cells measured one after another, a JSON line each: within a time, and going on where a run was ended."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.matrix import models
from bench.matrix.cell import Cell
from bench.matrix.grid import Section
from bench.measure import energy, record
from bench.measure.results import load
from cadcpp.errors import CadError

Done = set[tuple[str, int]]  # ids and turns


def run(path: Path, wanted: list[Section], settings: dict[str, Any]) -> None:
    """Measure what ``path`` does not have yet. Costs are learned anew: others' may be of a busy machine."""
    os.environ["XDG_STATE_HOME"] = str(path.with_suffix(".state").absolute())
    start, done = time.monotonic(), begin(path, settings)
    limit = start + 60 * settings["minutes"]
    scale = 60 * settings["minutes"] / sum(s.seconds for s in wanted)
    deadline = start
    for section in wanted:
        deadline += section.seconds * scale
        measure(path, section.cells, 0, done, min(deadline, limit))
    for section in wanted:  # what had no time, as far as others have left any
        measure(path, section.cells, 0, done, limit)
    tell_left_out(path, [cell for section in wanted for cell in section.cells], done)
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
            if (cell.id, turn) not in done and time.monotonic() + cell.least_s <= deadline:
                done.add((cell.id, turn))
                _measure_one(path, cell, turn)
            _delete(large - {f for other in cells[i + 1 :] for f in other.files})
    finally:
        _delete(large)


def tell_left_out(path: Path, cells: Iterable[Cell], done: Done) -> None:
    """A line for each cell that there was no time for."""
    for cell in cells:
        if (cell.id, 0) not in done:
            done.add((cell.id, 0))
            _tell(path, cell, 0, {"id": cell.id, "left_out": "no time was left"})


def _measure_one(path: Path, cell: Cell, turn: int) -> None:
    reason = cell.why_not()
    if not (reason and turn):
        _tell(path, cell, turn, {"id": cell.id, "left_out": reason} if reason else run_one(cell))


def _tell(path: Path, cell: Cell, turn: int, line: dict[str, Any]) -> None:
    write(path, {"turn": turn, **line})
    print(_shown(cell, line), flush=True)


def run_one(cell: Cell) -> dict[str, Any]:
    try:
        return cell.run()
    except (CadError, OSError) as error:  # of the files it needs, or of the limits; the other cells go on
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


def _shown(cell: Cell, line: dict[str, Any]) -> str:
    for key in ("left_out", "error"):
        if key in line:
            return f"{cell.id:<44} {key.replace('_', ' ')}: {line[key]}"
    seconds = f"{line['s_per_token']:8.3f} s/token" if "s_per_token" in line else ""
    return f"{cell.id:<44} {seconds:<16} {line['seconds']:6.1f} s in all"
