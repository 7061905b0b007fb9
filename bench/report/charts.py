"""Charts of a report: what is drawn as plain values, and matplotlib (the `bench` extra) to draw it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Point = tuple[float, float, float]  # the value, and the least and the largest that were measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Series of values: over numbers they are lines, over names bars."""

    name: str  # of the file
    title: str
    y: str
    x: str = ""
    series: dict[str, dict[Any, Point]] = field(default_factory=dict)  # by name, then by place on the x axis
    log: bool = True  # the y axis
    log_x: bool = True

    @property
    def places(self) -> list[Any]:
        return list(dict.fromkeys(x for points in self.series.values() for x in points))


def can_draw() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw_all(charts: Iterable[Chart], folder: Path) -> None:
    """An SVG for each."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cadcpp"  # the same values make the same file
    folder.mkdir(parents=True, exist_ok=True)
    for chart in charts:
        _draw(chart, folder / f"{chart.name}.svg")


def _draw(chart: Chart, path: Path) -> None:
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(10, 4))
    (_lines if all(isinstance(x, (int, float)) for x in chart.places) else _bars)(axes, chart)
    axes.set_ylabel(chart.y)
    axes.set_xlabel(chart.x)
    axes.set_title(chart.title, fontsize=10)
    if chart.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _lines(axes: Any, chart: Chart) -> None:
    for name, points in chart.series.items():
        places = sorted(points)
        values = [points[x][0] for x in places]
        axes.errorbar(places, values, yerr=_range(points[x] for x in places), label=name, marker="o", capsize=2)
    if chart.log_x:
        axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(chart.places), [f"{x:.3g}" if x < 100 else f"{x:.0f}" for x in sorted(chart.places)])
    axes.minorticks_off()


def _bars(axes: Any, chart: Chart) -> None:
    width = 0.8 / max(len(chart.series), 1)
    for i, (name, points) in enumerate(chart.series.items()):
        places = [chart.places.index(x) + width * (i + 0.5) - 0.4 for x in points]
        values = [point[0] for point in points.values()]
        bars = axes.bar(places, values, 0.9 * width, yerr=_range(points.values()), label=name)
        axes.bar_label(bars, fmt="%.3g", fontsize=6)
    axes.set_xticks(range(len(chart.places)), chart.places, fontsize=8)


def _range(points: Iterable[Point]) -> list[list[float]]:
    found = list(points)  # a mean of one value may differ from it by a rounding
    return [[max(v - low, 0.0) for v, low, _ in found], [max(high - v, 0.0) for v, _, high in found]]
