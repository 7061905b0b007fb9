"""A mixture of experts larger than memory (cgroup): plain llama.cpp, cadcpp without drafts, and with a draft.

    python -m bench.studies.mixture_of_experts [--share 25 50 75] [--disk 0 400 100] [--runs 3] [--minutes 30]

The kernel counts what is read. The model has the shape of Qwen3-30B-A3B and writes SmolLM2's text (see
`cadcpp.models.demo_mixture`). Budgets are for everything, a share of the model's file. Plain llama.cpp is told not to
repack weights: at its defaults it copies all of a Q4_0 model, which no such budget has room for. It reads experts by
page faults, so that the disk's read_ahead_kb decides on its speed. Every run is a first session, which has learned
nothing. What was measured before is not measured again, so that the same command goes on where its time was over or
where it was ended; all is measured once before anything is measured again.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from bench.matrix import models
from bench.matrix.cell import MIB, Place, measure, prompt
from bench.matrix.runner import begin, write
from bench.measure import record
from bench.measure.memory_wall import read_ahead_kb, why_not
from bench.measure.results import Result, Run, load
from bench.program import run_program
from cadcpp.models.demo_mixture import demo_mixture

PLAIN, OWN, DRAFTED = SYSTEMS = "plain llama.cpp", "cadcpp", "cadcpp, draft"
_CTX = 1024
_PLAIN_TOKENS = 4  # where it reads nearly the whole file for every one of them, and ...
_MUCH_KB = 512  # ... that is where the disk reads more than this around each page fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is measured. Two cells of one id are the same."""

    share: int  # of the model's file, in percent
    place: Place
    system: str
    case: str
    n: int  # tokens

    @property
    def id(self) -> str:
        return f"{self.place.key}/{self.case}/{self.system}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.mixture_of_experts", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=30, help="after which no run is begun")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--case", default="chat", help="whose prompt")
    parser.add_argument("--share", type=int, nargs="+", default=[25, 50, 75], help="of the file, in percent")
    parser.add_argument("--disk", type=int, nargs="+", default=[0, 400, 100], help="MiB/s; 0 is as fast as it is")
    parser.add_argument("--system", nargs="+", default=[*SYSTEMS], choices=SYSTEMS)
    parser.add_argument("--show", action="store_true", help="what was measured, and nothing more")
    parser.add_argument("-o", "--output", type=Path, default=record.RESULTS / "mixture.jsonl")
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"no memory limit here: {reason}")
    model = demo_mixture(record.models())
    models.make(models.draft())
    plain_tokens = options.tokens if read_ahead_kb(model) <= _MUCH_KB else _PLAIN_TOKENS
    wanted = cells(options, model.stat().st_size, plain_tokens)
    left = [] if options.show else _left(wanted, options)
    deadline = time.monotonic() + 60 * options.minutes
    while left and time.monotonic() < deadline:
        _measure(options.output, *left.pop(0), model)
    print("\n".join(_table(load(options.output), wanted)))
    print(f"around each page fault the disk reads up to {read_ahead_kb(model)} KB (read_ahead_kb; 128 is usual)")
    if left:
        print(f"{len(left)} runs are left; the same command goes on with them")


def cells(options: argparse.Namespace, n_bytes: int, plain_tokens: int) -> list[Cell]:
    """Of a model of ``n_bytes``, what is compared next to each other; plain llama.cpp writes ``plain_tokens``."""
    found = []
    for share, disk, system in product(options.share, options.disk, options.system):
        place = Place(n_bytes * share // 100 // MIB, disk or None)
        n = min(options.tokens, plain_tokens) if system == PLAIN else options.tokens
        found.append(Cell(share=share, place=place, system=system, case=options.case, n=n))
    return found


def _left(wanted: list[Cell], options: argparse.Namespace) -> list[tuple[Cell, int]]:
    """Cells and turns that were not measured yet with this code, all first turns before the second ones."""
    done = begin(options.output, {"tokens": options.tokens})
    return [(cell, turn) for turn in range(options.runs) for cell in wanted if (cell.id, turn) not in done]


def _measure(output: Path, cell: Cell, turn: int, model: Path) -> None:
    with tempfile.TemporaryDirectory() as state:
        argv = ["env", f"XDG_STATE_HOME={state}", *command(cell, model)]
        found = measure(cell.place.limits, argv, model)
    write(output, {"id": cell.id, "turn": turn, "share": cell.share, "system": cell.system, **found})
    told = found.get("error") or f"{found.get('s_per_token', 0.0):.3f} s/token, {found['seconds']:.1f} s in all"
    print(f"{cell.id:<44} {told}", flush=True)


def command(cell: Cell, model: Path) -> list[str]:
    shared = ["-m", str(model), "-p", prompt(cell.case), "-n", str(cell.n), "--ctx", str(_CTX)]
    if cell.system == PLAIN:
        return [sys.executable, "-m", "bench.baselines.plain", *shared, "--same-settings"]
    drafted = ["-d", str(models.draft())] if cell.system == DRAFTED else ["--speculative", "off"]
    ours = ["--temp", "0", "--json", "--ram", f"{cell.place.ram}MiB", *drafted]
    return [sys.executable, "-m", "cadcpp", "generate", *shared, *ours]


def _table(run: Run, wanted: list[Cell]) -> Iterator[str]:
    """Medians of the text after its first token; x is how much faster than plain llama.cpp."""
    yield "| budget | disk | system | s/token | x | MB/token | found | a pass | peak MiB | runs |"
    yield f"|{'---|' * 10}"
    plain = {cell.place: run.of(cell.id).median("s_per_token") for cell in wanted if cell.system == PLAIN}
    for cell in wanted:
        found = run.of(cell.id)
        figures = found.problem or _figures(found, plain.get(cell.place))
        yield f"| {cell.share}%, {cell.place.ram} MiB | {cell.place.disk_name} | {cell.system} | {figures} |"


def _figures(found: Result, plain_s: float | None) -> str:
    seconds = found.median("s_per_token") or 0.0
    rate, a_pass = found.median("hit_rate"), found.median("pass")
    columns: list[Any] = [
        f"{seconds:.3f}",
        f"{plain_s / seconds:.1f}" if plain_s and seconds else "",
        f"{(found.median('read_per_token') or 0) / 1e6:.1f}",
        "" if rate is None else f"{rate:.1%}",
        "1" if a_pass is None else f"{a_pass:.2f}",
        max(map(int, found.values("peak_bytes"))) >> 20,
        len(found.good),
    ]
    return " | ".join(map(str, columns))


if __name__ == "__main__":
    run_program(main)
