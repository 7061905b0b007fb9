"""Sections on scale: how cost grows with the context and with the model."""

from dataclasses import replace

from bench.matrix.cell import MEMORY, Cell
from bench.matrix.grid import AS_IS, Section
from bench.matrix.systems import NAMES, OURS, PLAIN
from bench.measure.results import Run
from bench.report.charts import Chart
from bench.report.part import Part, over
from bench.report.statistics import growth


def context(run: Run, section: Section) -> Part:
    part = Part()
    for key, y, name in (
        ("s_per_token", "seconds a token", "report-context"),
        ("first_s", "seconds to the first token", "report-context-first"),
        ("read_per_token", "MB read a token", "report-context-bytes"),
    ):
        points = {kind: over(run, section, kind, _tokens, key) for kind in (PLAIN, OURS)}
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
            points = over(run, here, kind, lambda c: float(c.size.removesuffix("GB")))
            series[f"{NAMES[kind]}, {place}"] = points
            if len(points) > 1:
                part.say(f"{NAMES[kind]}, {place}: {growth(points, 'size')}.")
    title = "by the verifier's size, chat"
    part.draw(Chart(name="report-size", title=title, y="seconds a token", x="GB", series=series))
    return part
