"""In memory, by the verifier's weight type, beside llama.cpp at its own defaults: plain decoding, drafts, a prompt.

    python -m bench.studies.weight_types           half an hour; goes on where it was ended
    python -m bench.studies.weight_types --show    the tables again

Into bench/results/types.jsonl and .md.
"""

import statistics
from collections.abc import Iterator

from bench.matrix import models
from bench.matrix.cell import MEMORY, Cell
from bench.matrix.grid import cell
from bench.matrix.systems import OURS, PLAIN
from bench.matrix.workloads import CASES
from bench.measure.results import Run
from bench.program import run_program
from bench.report.build import texts
from bench.report.statistics import mean, ratio
from bench.report.tables import number, table, times
from bench.studies.cell_study import study

_TURNS, _TOKENS = 3, 64
_KINDS = (PLAIN, "off", OURS)


def main() -> None:
    study("bench.studies.weight_types", __doc__, "types", cells, report)


def cells() -> Iterator[Cell]:
    """Those of a text follow each other, so that they have the same machine.

    Repacked weights round differently from those that come, so texts are compared with cadcpp's own plain decoding.
    """
    for name in models.TYPES:
        for case in CASES:
            yield from (cell(MEMORY, case, kind, _TOKENS, size=name, repeats=_TURNS) for kind in _KINDS)
        for kind in ("first-plain", "first"):
            yield cell(MEMORY, "long", kind, 1, size=name, repeats=_TURNS)


def report(found: Run) -> list[str]:
    first = f"Commit {found.settings.get('commit')}, on {found.settings.get('processor')}."
    rows = [_row(found, name, case) for name in models.TYPES for case in CASES]
    head = ["verifier", "text", *(f"{kind}, s/token" for kind in _KINDS), "plain decoding", "with the draft", "rows"]
    lines = [first, "", *texts(found), *table(head, rows), *table(_SUMMARY, (_of_type(found, n) for n in models.TYPES))]
    return [*lines, f"Medians of {_TURNS}; multiples of llama.cpp's speed at its own defaults, {_TOKENS} tokens."]


_SUMMARY = ["verifier", "plain decoding", "with the draft: mean", "least", "prompt of 510 tokens"]


def _row(found: Run, name: str, case: str) -> list[object]:
    by_kind = {kind: cell(MEMORY, case, kind, _TOKENS, size=name) for kind in _KINDS}
    seconds = [_seconds(found, c) for c in by_kind.values()]
    ours = found.of(by_kind[OURS].id)
    rows, passes = ours.median("rows"), ours.median("passes")
    ratios = [times(ratio(found, by_kind[kind])) for kind in ("off", OURS)]
    return [name, case, *seconds, *ratios, number(rows / passes) if rows and passes else ""]


def _seconds(found: Run, of: Cell) -> str:
    result = found.of(of.id)
    half = result.spread()
    return number(result.median("s_per_token")) + (f" ±{half:.0%}" if half is not None else "")


def _of_type(found: Run, name: str) -> list[object]:
    ratios = {k: [ratio(found, cell(MEMORY, case, k, size=name)) for case in CASES] for k in ("off", OURS)}
    least = min((r for r in ratios[OURS] if r), default=None)
    figures = mean(ratios["off"]), mean(ratios[OURS]), least, _prompt_ratio(found, name)
    return [name, *map(times, figures)]


def _prompt_ratio(found: Run, name: str) -> float | None:
    """By the time between loading and the first token."""
    plain, ours = (found.of(cell(MEMORY, "long", k, 1, size=name).id) for k in ("first-plain", "first"))
    theirs = [r["first_s"] - r["load_s"] for r in plain.good]
    own = [r["prompt_s"] for r in ours.good]
    return statistics.median(theirs) / statistics.median(own) if theirs and own else None


if __name__ == "__main__":
    run_program(main)
