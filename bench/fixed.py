"""The cost model beside trees of every fixed size and LLMCad's fallback: all workloads, in memory and behind walls.

    python -m bench.fixed           an hour and a half, as root; goes on where it was ended
    python -m bench.fixed --show    the tables again

Into bench/results/fixed.jsonl and .md.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.cases import CASES
from bench.cell import MEMORY, Cell, Place
from bench.figures import mean, median
from bench.grid import AS_IS, MEDIUM, ROWS, SLOW, Section, cell
from bench.record import RESULTS
from bench.results import Run, differing, load
from bench.run import run
from bench.systems import OURS, PLAIN
from bench.tables import number, table

_PATH = RESULTS / "fixed.jsonl"
_TOKENS = {MEMORY: 48, MEDIUM: 40, SLOW: 32, AS_IS: 40}
_DAY = 24 * 60.0  # minutes: no limit


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fixed", description=__doc__)
    parser.add_argument("--show", action="store_true", help="what is there")
    parser.add_argument("-o", "--output", type=Path, default=_PATH, help="of the JSON lines")
    options = parser.parse_args()
    if not options.show:
        section = Section("fixed", "", 60 * _DAY, tuple(cells()))
        run(options.output, [section], {"tokens": None, "minutes": _DAY})
    text = "\n".join(report(load(options.output)))
    options.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)


def cells() -> Iterator[Cell]:
    """Those of a workload follow each other; plain decoding is there for its text."""
    for place, n in _TOKENS.items():
        for case in CASES:
            if place == MEMORY:
                yield cell(place, case, PLAIN, n)
            yield from (cell(place, case, kind, n) for kind in (OURS, *sizes(place), "llmcad"))


def sizes(place: Place) -> list[str]:
    """Kinds of cells. Small trees are for where every row costs."""
    return [f"rows-{rows}" for rows in ((2, 4, *ROWS) if place == MEMORY else ROWS)]


def report(found: Run) -> list[str]:
    compared = [where for id, where in differing(found).items() if "/plain" not in id]
    lines = [f"Commit {found.settings.get('commit')}, on {found.settings.get('processor')}."]
    lines += [f"Of {len(compared)} texts {sum(map(bool, compared))} differ from plain decoding's.", ""]
    return [*lines, *(line for place in _TOKENS for line in of_place(found, place))]


def of_place(found: Run, place: Place) -> list[str]:
    """Seconds a token by workload, and how the cost model compares with each column."""
    kinds = [OURS, "llmcad", *sizes(place)]
    seconds = {case: {kind: median(found, cell(place, case, kind)) for kind in kinds} for case in CASES}
    whole = [case for case, by_kind in seconds.items() if all(by_kind.values())]
    if not whole:
        return []
    head = [f"{place}, s/token", "cost model", "LLMCad", *(f"{kind.partition('-')[2]} rows" for kind in sizes(place))]
    means = {kind: mean(seconds[case][kind] for case in whole) or 0.0 for kind in kinds}
    rows = [*((case, seconds[case]) for case in whole), (f"mean of {len(whole)}", means)]
    best, best_each = min(means[kind] for kind in sizes(place)), _best_of_each(seconds, whole, place)
    return [
        *table(head, [[name, *(number(by_kind[kind]) for kind in kinds)] for name, by_kind in rows]),
        f"The cost model's speed: {best / means[OURS]:.0%} of the size that is best on average,"
        f" {best_each / means[OURS]:.0%} of the best size of each workload, {means['llmcad'] / means[OURS]:.0%} of"
        f" LLMCad's fallback.",
        "",
    ]


def _best_of_each(seconds: dict[str, dict[str, float | None]], cases: Iterable[str], place: Place) -> float:
    return mean(min(s for kind in sizes(place) if (s := seconds[case][kind])) for case in cases) or 0.0


if __name__ == "__main__":
    main()
