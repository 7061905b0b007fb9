"""The cost model beside trees of every fixed size and LLMCad's fallback: all workloads, in memory and with
memory limits (cgroup).

    python -m bench.studies.fixed_sizes           two hours and a half, as root; goes on where it was ended
    python -m bench.studies.fixed_sizes --show    the tables again

Into bench/results/fixed.jsonl and .md.
"""

from collections.abc import Iterator

from bench.matrix.cell import MEMORY, Cell, Place
from bench.matrix.grid import AS_IS, MEDIUM, ROWS, SLOW, cell
from bench.matrix.systems import OURS, SAME
from bench.matrix.workloads import CASES
from bench.measure.results import Run
from bench.program import run_program
from bench.report.build import texts
from bench.report.statistics import mean, median
from bench.report.tables import number, table
from bench.studies.cell_study import study

_TOKENS = {MEMORY: 48, MEDIUM: 40, SLOW: 40, AS_IS: 40}


def main() -> None:
    study("bench.studies.fixed_sizes", __doc__, "fixed", cells, report)


def cells() -> Iterator[Cell]:
    """Those of a workload follow each other; plain decoding is there for its text."""
    for place, n in _TOKENS.items():
        for case in CASES:
            if place == MEMORY:
                yield cell(place, case, SAME, n)
            yield from (cell(place, case, kind, n) for kind in (OURS, *sizes(place), "llmcad"))


def sizes(place: Place) -> list[str]:
    """Kinds of cells. Small trees are for where every row costs."""
    return [f"rows-{rows}" for rows in (ROWS if place == MEMORY else ROWS[2:])]


def report(found: Run) -> list[str]:
    first = f"Commit {found.settings.get('commit')}, on {found.settings.get('processor')}."
    return [first, "", *texts(found), *(line for place in _TOKENS for line in of_place(found, place))]


def of_place(found: Run, place: Place) -> list[str]:
    """Seconds a token by workload, and how the cost model compares with each column."""
    columns = {OURS: "cost model", "llmcad": "LLMCad", **{kind: f"{kind[5:]} rows" for kind in sizes(place)}}
    seconds = {kind: {case: median(found, cell(place, case, kind)) for case in CASES} for kind in columns}
    cases = [case for case in CASES if seconds[OURS][case]]
    whole = {kind: [seconds[kind][case] or 0.0 for case in cases] for kind in columns}
    whole = {kind: values for kind, values in whole.items() if values and all(values)}
    fixed = [values for kind, values in whole.items() if kind in sizes(place)]
    if not fixed:
        return []
    means = {kind: mean(values) or 0.0 for kind, values in whole.items()}
    rows = [[case, *(number(values[i]) for values in whole.values())] for i, case in enumerate(cases)]
    rows.append([f"mean of {len(cases)}", *map(number, means.values())])
    best, best_each = min(filter(None, map(mean, fixed))), mean(map(min, zip(*fixed, strict=True))) or 0.0
    return [
        *table([f"{place}, s/token", *(columns[kind] for kind in whole)], rows),
        f"The cost model's speed: {best / means[OURS]:.0%} of the size that is best on average,"
        f" {best_each / means[OURS]:.0%} of the best size of each workload"
        + (f", {means['llmcad'] / means[OURS]:.0%} of LLMCad's fallback." if "llmcad" in means else "."),
        "",
    ]


if __name__ == "__main__":
    run_program(main)
