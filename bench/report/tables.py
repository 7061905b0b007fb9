"""Tables of a report, in Markdown."""

from collections.abc import Iterable

from bench.matrix.cell import Cell
from bench.measure.results import Run
from bench.report.statistics import over_others, plain_of, ratio

PYTHON = "python -m bench.repeat"
_COLUMNS = (
    ("place", "workload", "system", "s/token", "x plain", "x llama.cpp's speculation", "tokens a pass", "rows a pass")
    + ("MB read a token", "CPU s a token", "peak MiB", "machine", "runs", "text", f"`{PYTHON}`")
)  # fmt: skip


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    lines = [_row(head)]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    return [*lines, *map(_row, rows), ""]


def _row(values: Iterable[object]) -> str:
    return "| " + " | ".join("" if v is None else str(v).replace("|", "/").replace("\n", " ") for v in values) + " |"


def number(value: float | None, digits: int = 3) -> str:
    """With so many significant digits, and none after a point that says nothing."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}".rstrip(".")


def times(value: float | None) -> str:
    return f"{number(value, 2)}x" if value else ""


def megabytes(value: float | None) -> str:
    return number(value / 1e6) if value is not None else ""


def spread(run: Run, cell: Cell) -> str:
    """A median with half of its range."""
    result = run.of(cell.id)
    half = result.spread()
    return number(result.median("s_per_token")) + (f" ±{half:.0%}" if half is not None else "")


def cells_table(run: Run, cells: Iterable[Cell], differing: dict[str, str]) -> list[str]:
    """A row for each cell, folded away; with what repeats it."""
    rows = [_cell_row(run, cell, differing) for cell in dict.fromkeys(cells)]
    return ["<details><summary>every cell</summary>", "", *table(_COLUMNS, rows), "</details>", ""]


def _cell_row(run: Run, cell: Cell, differing: dict[str, str]) -> list[object]:
    result = run.of(cell.id)
    repeat = f"`{cell.id}`"
    where = [cell.place, cell.workload, cell.name]
    if result.problem:
        return [*where, *[""] * (len(_COLUMNS) - len(where) - 2), f"**{result.problem}**", repeat]
    passes, rows, peak = (result.median(key) for key in ("passes", "rows", "peak_bytes"))
    base = ratio(run, cell) if plain_of(cell) != cell else None
    return [
        *where,
        spread(run, cell),
        times(base),
        times(over_others(run, cell)) if base else "",
        number(result.median("pass")),
        number(rows / passes) if rows and passes else "",
        megabytes(result.median("read_per_token")) if cell.place.ram else "",
        number(result.median("cpu_per_token")),
        number(peak / (1 << 20)) if peak else "",
        number(result.median("machine")),
        len(result.good),
        _text(differing.get(cell.id)),
        repeat,
    ]


def _text(found: str | None) -> str:
    return "" if found is None else f"**DIFFERS {found}**" if found else "same"
