"""What a section of a report comes to: lines and charts; and the points that several sections draw."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bench.matrix.cell import Cell
from bench.matrix.grid import AS_IS, MEDIUM, SLOW, Section
from bench.measure.results import Run
from bench.report.charts import Chart, Point
from bench.report.statistics import median, plain_of, point, ratio

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


def over(run: Run, section: Section, kind: str, x: Callable[[Cell], float], key: str = "s_per_token") -> Points:
    """The points of one kind of cells over something; bytes as megabytes."""
    cells, factor = [c for c in section.cells if c.kind == kind], 1e-6 if key == "read_per_token" else 1.0
    return {x(c): found for c in cells if (found := point(run, c, key, factor))}


def ratios(run: Run, cells: list[Cell]) -> dict[str, Point]:
    """By workload, with the range that the system's own runs give."""
    found = {}
    for c in cells:
        base, seconds = median(run, plain_of(c)), run.of(c.id).values("s_per_token")
        if base and seconds and (middle := ratio(run, c)):
            found[c.workload] = (middle, base / max(seconds), base / min(seconds))
    return found
