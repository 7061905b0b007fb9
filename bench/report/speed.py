"""Sections on speed: with a memory limit, in memory, by overcommit, and what each technique is worth."""

from bench.matrix.cell import MEMORY, Cell
from bench.matrix.grid import AS_IS, DRAWN, MEDIUM, VERIFIER_MIB, Section, cell
from bench.matrix.systems import CHAIN, LOOKUP, NAMES, OURS, PLAIN
from bench.matrix.workloads import CASES
from bench.measure.neighbours import NAMES as neighbour_names
from bench.measure.results import Run
from bench.report.charts import Chart
from bench.report.part import DISKS, SPEED, Part, over, ratios
from bench.report.statistics import growth, mean, median, over_others, ranged, ratio
from bench.report.tables import number, table, times


def headline(run: Run) -> list[str]:
    """The table that the README has: seconds a token with a memory limit."""
    cases = [case for case in CASES if any(median(run, cell(place, case, OURS)) for place in DISKS)]
    rows = [[NAMES[kind], *_seconds(run, kind)] for kind in (PLAIN, LOOKUP, CHAIN)]
    for name, sampling in (("greedy", "greedy"), ("temperature 0.8", DRAWN)):
        ours = {(place, case): cell(place, case, OURS, sampling=sampling) for place in DISKS for case in cases}
        if not any(median(run, found) for found in ours.values()):
            continue
        for case in cases:
            rows.append([f"**cadcpp**: {case}, {name}", *(_with_ratio(run, ours[place, case]) for place in DISKS)])
        means = [mean(ratio(run, ours[place, case]) for case in cases) for place in DISKS]
        rows.append([f"mean (geometric), {name}", *map(times, means)])
    return table(["seconds per token", "disk as it is", "400 MiB/s", "100 MiB/s"], rows)


def _seconds(run: Run, kind: str) -> list[str]:
    return [number(mean(median(run, cell(place, case, kind)) for case in CASES)) for place in DISKS]


def _with_ratio(run: Run, found: Cell) -> str:
    seconds = number(median(run, found))
    return f"{seconds} ({times(ratio(run, found))})" if seconds else ""


def headline_chart(run: Run) -> Chart:
    """The same, greedy, with the range over the texts."""
    series = {
        NAMES[kind]: {
            place.disk_name: found
            for place in DISKS
            if (found := ranged(median(run, cell(place, case, kind)) for case in CASES))
        }
        for kind in (PLAIN, LOOKUP, CHAIN, OURS)
    }
    return Chart(name="report-wall", title="1.19 GB verifier in 900 MiB", y="seconds a token", series=series)


def limited(run: Run, section: Section) -> Part:
    part = Part()
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
    by_kind = {kind: over(run, section, kind, _overcommit) for kind in (PLAIN, OURS, "ngram")}
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


def in_memory(run: Run, section: Section) -> Part:
    part, kinds = Part(), (LOOKUP, CHAIN, "draft", OURS)
    series = {NAMES[kind]: ratios(run, [c for c in section.cells if c.kind == kind]) for kind in kinds}
    part.draw(Chart(name="report-memory", title="in memory, by workload", y=SPEED, series=series, log=False))
    for kind in kinds:
        if found := ranged(ratio(run, c) for c in section.cells if c.kind == kind):
            part.say(f"{NAMES[kind]}: {times(found[0])} plain llama.cpp ({times(found[1])} to {times(found[2])}).")
    return part


def neighbours(run: Run, section: Section) -> Part:
    """Each beside the same neighbour."""
    part = Part()
    plights = dict.fromkeys((c.place, c.beside) for c in section.cells)
    rows = []
    for place, other in plights:
        base, ours = (cell(place, "chat", kind, beside=other) for kind in (PLAIN, OURS))
        seconds = [number(median(run, found)) for found in (base, ours)]
        rows.append([place, neighbour_names.get(other, "alone"), *seconds, times(ratio(run, ours))])
    part.lines += table(["chat, s a token", "", NAMES[PLAIN], NAMES[OURS], "x"], rows)
    return part


def ablation(run: Run, section: Section) -> Part:
    part = Part()
    for place, title in {MEDIUM: "400 MiB/s", MEMORY: "in memory", AS_IS: "pieces taken out, disk as is"}.items():
        cells = [c for c in section.cells if c.place == place and c.kind != PLAIN]
        series = {c.name: ratios(run, [o for o in cells if o.kind == c.kind]) for c in cells}
        name = f"report-ablation-{place.key.replace('@', '-')}"
        part.draw(Chart(name=name, title=f"what each piece is worth, {title}", y=SPEED, series=series, log=False))
        means = [[c.name, times(mean(ratio(run, o) for o in cells if o.kind == c.kind))] for c in cells]
        if any(found for _, found in means):
            part.lines += table([str(place), SPEED + ", mean"], dict(means).items())
    return part
