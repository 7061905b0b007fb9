"""Sections on drafts: trees of fixed sizes, two stages, and how often a draft agrees."""

from dataclasses import replace

from bench.matrix.cell import MEMORY, Cell, Place
from bench.matrix.grid import AS_IS, DRAFTS, MEDIUM, ROWS, Section, cell
from bench.matrix.systems import NAMES, OURS
from bench.measure.results import Run
from bench.report.charts import Chart, Point
from bench.report.goals import best_fixed, sized, traffic
from bench.report.part import SPEED, Part, Points
from bench.report.statistics import growth, mean, median, point, ranged, ratio
from bench.report.tables import megabytes, number, table, times


def sweep(run: Run, section: Section) -> Part:
    part = Part()
    places = [p for p in (MEMORY, AS_IS, MEDIUM) if any(c.place == p for c in section.cells)]
    part.lines += _sweep_table(run, places)
    fixed = {str(p): {rows: r for rows in ROWS if (r := _sized_ratio(run, p, rows))} for p in places}
    model = {
        f"cost model, {p}": dict.fromkeys((ROWS[0], ROWS[-1]), found)
        for p in places
        if (found := ranged(ratio(run, cell(p, case, OURS)) for case in ("chat", "code")))
    }
    both = {**fixed, **model}
    part.draw(Chart(name="report-sweep", title="trees of fixed sizes", y=SPEED, x="rows", series=both))
    for place in places:
        if share := best_fixed(run, place):
            part.say(f"{place}: the cost model reaches {share:.0%} of the best fixed size's speed.")
    passes = {str(p): _pass_seconds(run, section, p) for p in places}
    title = "one round, a draft's tree and a pass over it, by rows"
    part.draw(Chart(name="report-rows", title=title, y="seconds a round", x="rows in the pass", series=passes))
    part.say(*(f"{name}: {growth(points, 'rows')}." for name, points in passes.items() if len(points) > 1))
    part.say(*(text for place in places if (text := _bytes_by_rows(run, section, place))))
    return part


def _sweep_table(run: Run, places: list[Place]) -> list[str]:
    def speed(place: Place, kind: str) -> str:
        return times(mean(ratio(run, cell(place, case, kind)) for case in ("chat", "code")))

    kinds = [OURS, "llmcad", *(f"rows-{rows}" for rows in ROWS)]
    head = [SPEED, "cost model", "LLMCad", *(f"{rows} rows" for rows in ROWS)]
    return table(head, [[place, *(speed(place, kind) for kind in kinds)] for place in places])


def _sized_ratio(run: Run, place: Place, rows: int) -> Point | None:
    return ranged(ratio(run, sized(place, case, rows)) for case in ("chat", "code"))


def _pass_seconds(run: Run, section: Section, place: Place) -> Points:
    """Seconds of a round over the rows that its pass really had."""
    found = Points()
    for c in section.cells:
        result = run.of(c.id)
        rows, passes = result.median("rows"), result.median("passes")
        wanted = c.place == place and c.kind.startswith("rows-") and c.workload == "chat"
        if wanted and rows and passes and (seconds := point(run, c, "round_s")):
            found[round(rows / passes)] = seconds
    return found


def _bytes_by_rows(run: Run, section: Section, place: Place) -> str:
    """What a pass reads, counted by the kernel, at the fewest and at the most rows."""
    cells = [c for c in section.cells if c.place == place and c.kind.startswith("rows-") and c.workload == "chat"]
    figures = [(c.kind.partition("-")[2], median(run, c, "read_per_pass")) for c in cells]
    found = [(rows, read) for rows, read in figures if read]
    if not place.ram or len(found) < 2:
        return ""
    (few, first), (many, last) = found[0], found[-1]
    return f"{place}: a pass reads {megabytes(first)} MB at {few} rows, {megabytes(last)} MB at {many}."


def staged(run: Run, section: Section) -> Part:
    part = Part()
    kinds = [c for c in section.cells if c.kind != "off"]
    columns = list(dict.fromkeys((c.workload, c.sampling) for c in kinds))
    rows = []
    for kind, draft in dict.fromkeys((c.kind, c.draft) for c in kinds):
        cells = [replace(kinds[0], kind=kind, draft=draft, workload=w, sampling=s) for w, s in columns]
        rows.append([f"{cells[0].name.split(',')[0] if kind != 'stages' else NAMES[kind]}, {draft}"])
        rows[-1] += [number(traffic(run, c), 2) for c in cells]
    if any(any(row[1:]) for row in rows):
        part.say("Weights touched a token (both models' bytes, counted), relative to plain decoding; lower is better.")
        part.lines += table(["", *(f"{w}, {s}" for w, s in columns)], rows)
    series = {row[0]: _traffic_points(columns, row[1:]) for row in rows}
    part.draw(Chart(name="report-staged", title="weights touched a token", y="x plain", series=series, log=False))
    part.say(*_saved(run, kinds))
    return part


def _traffic_points(columns: list[tuple[str, str]], cells: list[str]) -> dict[str, Point]:
    pairs = [(f"{w}, {s}", float(value)) for (w, s), value in zip(columns, cells, strict=True) if value]
    return {name: (value, value, value) for name, value in pairs}


def _saved(run: Run, cells: list[Cell]) -> list[str]:
    """Draft decodes that the second stage saves; counts."""
    found = []
    for two in (c for c in cells if c.kind == "stages"):
        a, b = (_decodes(run, c) for c in (two, replace(two, kind="tree")))
        if a and b:
            found.append(f"- {two.workload}, {two.sampling}, {two.draft}: {1 - a / b:.0%} of the draft's decodes saved")
    return found


def _decodes(run: Run, found: Cell) -> float | None:
    decodes, n = (median(run, found, key) for key in ("draft_decodes", "n"))
    return decodes / n if decodes and n else None


def agreement(run: Run, section: Section) -> Part:
    part, rows = Part(), []
    cases = ("chat", "code")
    series: dict[str, Points] = {"in memory": {}, "400 MiB/s": {}}
    for draft in DRAFTS:
        agrees = _agreement(run, [cell(MEMORY, case, "agree", draft=draft) for case in cases])
        here = ranged(ratio(run, cell(MEMORY, case, OURS, draft=draft)) for case in cases)
        there = ranged([ratio(run, cell(MEDIUM, "chat", OURS, draft=draft))])
        for name, found in zip(series, (here, there), strict=True):
            if agrees is not None and found:
                series[name][100 * agrees] = found
        shown = [f"{agrees:.0%}" if agrees is not None else "", *(times(f and f[0]) for f in (here, there))]
        if any(shown):
            rows.append([draft, *shown])
    if rows:
        part.lines += table(["draft", "agrees", "in memory, chat and code", "400 MiB/s, chat"], rows)
    title, x = "agreement against speed", "agreement, percent"
    part.draw(Chart(name="report-agreement", title=title, y=SPEED, x=x, series=series, log_x=False))
    return part


def _agreement(run: Run, cells: list[Cell]) -> float | None:
    """Share of single guesses that the verifier would have said itself; counts."""
    found = [[run.of(c.id).median(key) for key in ("accepted", "rows", "passes")] for c in cells]
    counted = [
        (accepted, rows - passes) for accepted, rows, passes in found if rows and passes and accepted is not None
    ]
    guessed = sum(n for _, n in counted)
    return sum(accepted for accepted, _ in counted) / guessed if guessed else None
