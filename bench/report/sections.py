"""The sections of a report: what each says in sentences and tables, and what it draws."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bench.matrix.cell import MEMORY, Cell, Place
from bench.matrix.grid import AS_IS, DRAFTS, MEDIUM, ROWS, SLOW, VERIFIER_MIB, Section, cell
from bench.matrix.systems import CHAIN, LOOKUP, NAMES, OURS, PLAIN
from bench.matrix.workloads import CASES
from bench.measure.results import Run
from bench.report.charts import Chart, Point
from bench.report.goals import best_fixed, reads, sized, traffic
from bench.report.statistics import growth, mean, median, over_others, plain_of, point, ranged, ratio
from bench.report.tables import PYTHON, megabytes, number, table, times

SPEED = "x plain llama.cpp"
DISKS = (AS_IS, MEDIUM, SLOW)
Points = dict[float, Point]


@dataclass(slots=True)
class Part:
    """What a section comes to."""

    lines: list[str] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)

    def say(self, *sentences: str) -> None:
        self.lines += [*filter(None, sentences), ""]

    def draw(self, chart: Chart) -> None:
        """Nothing where nothing was measured."""
        kept = {name: points for name, points in chart.series.items() if points}
        if kept:
            self.charts.append(replace(chart, series=kept))
            self.lines += [f"![{chart.title}](measured/{chart.name}.svg)", ""]


def headline(run: Run) -> list[str]:
    """The table that the README has: seconds a token behind the wall."""
    cases = [case for case in CASES if any(median(run, cell(place, case, OURS)) for place in DISKS)]
    rows = [[NAMES[kind], *_seconds(run, kind)] for kind in (PLAIN, LOOKUP, CHAIN)]
    rows += [[f"**cadcpp**: {case}", *(_with_ratio(run, cell(place, case, OURS)) for place in DISKS)] for case in cases]
    means = [mean(ratio(run, cell(place, case, OURS)) for case in cases) for place in DISKS]
    rows.append(["mean (geometric)", *map(times, means)])
    return table(["seconds per token", "disk as it is", "400 MiB/s", "100 MiB/s"], rows)


def _seconds(run: Run, kind: str) -> list[str]:
    return [number(mean(median(run, cell(place, case, kind)) for case in CASES)) for place in DISKS]


def _with_ratio(run: Run, found: Cell) -> str:
    seconds = number(median(run, found))
    return f"{seconds} ({times(ratio(run, found))})" if seconds else ""


def wall(run: Run, section: Section) -> Part:
    part, kinds = Part(), (PLAIN, LOOKUP, CHAIN, OURS, "draft")
    series = {
        NAMES[kind]: {
            place.disk_name: found
            for place in DISKS
            if (found := ranged(median(run, c) for c in section.cells if (c.place, c.kind) == (place, kind)))
        }
        for kind in kinds
    }
    part.draw(Chart(name="report-wall", title="1.19 GB verifier in 900 MiB", y="seconds a token", series=series))
    for place in DISKS:
        ours = [c for c in section.cells if (c.place, c.kind) == (place, OURS)]
        against, others = (mean(f(run, c) for c in ours) for f in (ratio, over_others))
        if against:
            beside = f", and {times(others)} its faster own speculation's" if others else ""
            n = sum(ratio(run, c) is not None for c in ours)
            part.say(f"{place}: {times(against)} plain llama.cpp's speed{beside} (workloads: {n}).")
    return part


def overcommit(run: Run, section: Section) -> Part:
    part = Part()
    by_kind = {kind: _over(run, section, kind, _overcommit) for kind in (PLAIN, OURS, "ngram")}
    series = {NAMES[kind]: points for kind, points in by_kind.items()}
    part.draw(
        Chart(name="report-overcommit", title="by overcommit, chat", y="seconds a token", x="overcommit", series=series)
    )
    for kind in (PLAIN, OURS):
        if len(by_kind[kind]) > 1:
            part.say(f"{NAMES[kind]}: {growth(by_kind[kind], 'overcommit')}.")
    failed = [f"{c.place}: {run.of(c.id).problem}" for c in section.cells if c.kind == OURS and run.of(c.id).problem]
    part.say(*(f"- Did not run: {text}" for text in failed))
    return part


def _overcommit(found: Cell) -> float:
    return VERIFIER_MIB / (found.place.ram or VERIFIER_MIB)


def _over(run: Run, section: Section, kind: str, x: Callable[[Cell], float], key: str = "s_per_token") -> Points:
    """The points of one kind of cells over something; bytes as megabytes."""
    cells, factor = [c for c in section.cells if c.kind == kind], 1e-6 if key == "read_per_token" else 1.0
    return {x(c): found for c in cells if (found := point(run, c, key, factor))}


def in_memory(run: Run, section: Section) -> Part:
    part, kinds = Part(), (LOOKUP, CHAIN, "draft", OURS)
    series = {NAMES[kind]: _ratios(run, [c for c in section.cells if c.kind == kind]) for kind in kinds}
    part.draw(Chart(name="report-memory", title="in memory, by workload", y=SPEED, series=series, log=False))
    for kind in kinds:
        if found := ranged(ratio(run, c) for c in section.cells if c.kind == kind):
            part.say(f"{NAMES[kind]}: {times(found[0])} plain llama.cpp ({times(found[1])} to {times(found[2])}).")
    return part


def _ratios(run: Run, cells: list[Cell]) -> dict[str, Point]:
    """By workload, with the range that the system's own runs give."""
    found = {}
    for c in cells:
        base, seconds = median(run, plain_of(c)), run.of(c.id).values("s_per_token")
        if base and seconds and (middle := ratio(run, c)):
            found[c.workload] = (middle, base / max(seconds), base / min(seconds))
    return found


def ablation(run: Run, section: Section) -> Part:
    part = Part()
    for place, title in {MEDIUM: "400 MiB/s", MEMORY: "in memory", AS_IS: "pieces taken out, disk as is"}.items():
        cells = [c for c in section.cells if c.place == place and c.kind != PLAIN]
        series = {c.name: _ratios(run, [o for o in cells if o.kind == c.kind]) for c in cells}
        name = f"report-ablation-{place.key.replace('@', '-')}"
        part.draw(Chart(name=name, title=f"what each piece is worth, {title}", y=SPEED, series=series, log=False))
        means = [[c.name, times(mean(ratio(run, o) for o in cells if o.kind == c.kind))] for c in cells]
        if any(found for _, found in means):
            part.lines += table([str(place), SPEED + ", mean"], dict(means).items())
    return part


def sweep(run: Run, section: Section) -> Part:
    part = Part()
    places = [p for p in (MEMORY, AS_IS, MEDIUM) if any(c.place == p for c in section.cells)]
    part.lines += _sweep_table(run, places)
    sizes = (2, 4, *ROWS)
    fixed = {str(p): {rows: r for rows in sizes if (r := _sized_ratio(run, p, rows))} for p in places}
    model = {
        f"cost model, {p}": dict.fromkeys((2, 256), found)
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

    kinds = [OURS, "llmcad", *(f"rows-{rows}" for rows in (2, 4, *ROWS))]
    head = [SPEED, "cost model", "LLMCad", *(f"{rows} rows" for rows in (2, 4, *ROWS))]
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


def footprint(run: Run, section: Section) -> Part:
    part, keys = Part(), ("made_bytes", "answered_bytes", "own_bytes")
    rows = [[c.name, *(megabytes(median(run, c, key)) for key in keys), f"`{c.id}`"] for c in section.cells]
    part.lines += table(["MB resident", "made", "answered", "not of the file", f"`{PYTHON}`"], rows)
    names = {"when made": "made_bytes", "after an answer": "answered_bytes", "not of the file": "own_bytes"}
    series = {
        name: {c.name: p for c in section.cells if (p := point(run, c, key, 1e-6))} for name, key in names.items()
    }
    title = "resident memory, context of 4096"
    part.draw(Chart(name="report-footprint", title=title, y="MB", series=series, log=False))
    return part


def first(run: Run, section: Section) -> Part:
    """Cold, Python included."""
    part, rows = Part(), []
    for c in section.cells:
        seconds, prompt, load = (median(run, c, key) for key in ("seconds", "prompt_tokens", "load_s"))
        note = run.of(c.id).problem
        figures = [f"{prompt:.0f}" if prompt else "", number(load), number(seconds), number(reads(run, c))]
        rows.append([c.place, c.name, *(figures if not note else [f"**{note}**", "", "", ""]), f"`{c.id}`"])
    part.lines += table(
        ["place", "system", "prompt tokens", "load s", "first token s", "reads of the file", f"`{PYTHON}`"], rows
    )
    names = {NAMES[kind]: [c for c in section.cells if c.kind == kind] for kind in ("first-plain", "first")}
    series = {
        name: {f"{c.place.disk_name}, {c.workload}": (r, r, r) for c in cells if (r := reads(run, c))}
        for name, cells in names.items()
    }
    title, y = "time to the first token, cold", "reads of the file"
    part.draw(Chart(name="report-first", title=title, y=y, series=series, log=False))
    loads = [(c.name, median(run, c, "load_s")) for c in (cell(MEMORY, "chat", k) for k in (PLAIN, LOOKUP, OURS))]
    part.say(*(f"Loading in memory, cold, {name}: {number(s)} s." for name, s in loads if s))
    return part


def overhead(run: Run, section: Section) -> Part:
    part, series = Part(), dict[str, dict[str, Point]]()
    for c in section.cells:
        for found in run.of(c.id).good[:1]:
            shares, seconds = found["profile_share"], found["profile_s"]
            rows = [[kind, f"{1000 * s:.1f}", f"{shares[kind]:.1%}"] for kind, s in seconds.items()]
            part.lines += table([f"{c.name} (`{c.id}`)", "ms", "share"], rows)
            for kind in (k for k in shares if k != "round"):
                series.setdefault(kind, {})[c.name] = (100 * shares[kind],) * 3
    title = "where the time of a round goes, in memory"
    part.draw(Chart(name="report-overhead", title=title, y="percent", series=series, log=False))
    return part


def context(run: Run, section: Section) -> Part:
    part = Part()
    for key, y, name in (
        ("s_per_token", "seconds a token", "report-context"),
        ("first_s", "seconds to the first token", "report-context-first"),
        ("read_per_token", "MB read a token", "report-context-bytes"),
    ):
        points = {kind: _over(run, section, kind, _tokens, key) for kind in (PLAIN, OURS)}
        series = {NAMES[kind]: found for kind, found in points.items()}
        title = f"{y}, by context, disk as is"
        part.draw(Chart(name=name, title=title, y=y, x="tokens", series=series))
        part.say(*(f"{NAMES[k]}, {y}: {growth(p, 'context')}." for k, p in points.items() if len(p) > 1))
    return part


def _tokens(found: Cell) -> float:
    return float(found.workload.partition("-")[2])


def size(run: Run, section: Section) -> Part:
    part, series = Part(), {}
    for place in (MEMORY, AS_IS):
        here = replace(section, cells=tuple(c for c in section.cells if c.place == place))
        for kind in (PLAIN, OURS):
            points = _over(run, here, kind, lambda c: float(c.size.removesuffix("GB")))
            series[f"{NAMES[kind]}, {place}"] = points
            if len(points) > 1:
                part.say(f"{NAMES[kind]}, {place}: {growth(points, 'size')}.")
    title = "by the verifier's size, chat"
    part.draw(Chart(name="report-size", title=title, y="seconds a token", x="GB", series=series))
    return part


def energy(run: Run, _: Section | None = None) -> Part:
    part, source = Part(), run.settings.get("joules_from")
    unit = "joules a token" if source else "CPU-seconds a token"
    part.say(
        f"Joules are counted by {source}, for the whole machine and the whole run, loading included."
        if source
        else "**This host has no energy counters (neither RAPL nor a Raspberry Pi's PMIC)**: CPU-seconds and bytes read"
        " a token stand in for joules, both after the first pass, which reads the prompt."
    )
    rows, series = [], dict[str, dict[str, Point]]()
    for place in (MEMORY, *DISKS):
        for c in (cell(place, "chat", kind) for kind in (PLAIN, LOOKUP, CHAIN, OURS)):
            if used := _joules(run, c) if source else median(run, c, "cpu_per_token"):
                read = megabytes(median(run, c, "read_per_token")) if place.ram else ""
                rows.append([place, c.name, number(used), read, f"`{c.id}`"])
                series.setdefault(c.name, {})[str(place)] = (used,) * 3
    if rows:
        part.lines += table(["chat", "system", unit, "MB read a token", f"`{PYTHON}`"], rows)
    part.draw(Chart(name="report-energy", title=f"{unit}, chat", y=unit, series=series))
    return part


def _joules(run: Run, found: Cell) -> float | None:
    joules, n = median(run, found, "joules"), median(run, found, "n")
    return joules / n if joules and n else None


RENDER: dict[str, Callable[[Run, Section], Part]] = {
    "wall": wall,
    "overcommit": overcommit,
    "ram": in_memory,
    "ablation": ablation,
    "sweep": sweep,
    "staged": staged,
    "agreement": agreement,
    "footprint": footprint,
    "first": first,
    "overhead": overhead,
    "context": context,
    "size": size,
}
