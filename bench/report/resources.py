"""Sections on what a run needs: memory, time to the first token, Python, and joules."""

from bench.matrix.cell import MEMORY, Cell
from bench.matrix.grid import Section, cell
from bench.matrix.systems import CHAIN, LOOKUP, NAMES, OURS, PLAIN
from bench.measure.results import Run
from bench.report.charts import Chart, Point
from bench.report.goals import reads
from bench.report.part import DISKS, Part
from bench.report.statistics import median, point
from bench.report.tables import PYTHON, megabytes, number, table


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
