"""Figures of cells beside each other: ratios to plain llama.cpp and to llama.cpp's own speculation."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace

from bench.matrix import models
from bench.matrix.cell import Cell
from bench.matrix.systems import CHAIN, LOOKUP, PLAIN
from bench.measure.results import Run
from bench.report.charts import Point


def median(run: Run, cell: Cell, key: str = "s_per_token") -> float | None:
    return run.of(cell.id).median(key)


def point(run: Run, cell: Cell, key: str = "s_per_token", factor: float = 1.0) -> Point | None:
    values = [factor * value for value in run.of(cell.id).values(key) if value]  # what is 0 was not counted
    return (statistics.median(values), min(values), max(values)) if values else None


def plain_of(cell: Cell) -> Cell:
    """Plain decoding in the same place and plight, whose speed no sampler changes; for counts of decodes cadcpp's."""
    if cell.sampling == "top-k":
        return replace(cell, kind="off", draft=models.USUAL_DRAFT)
    kind = "first-plain" if cell.kind == "first" else PLAIN
    return replace(cell, kind=kind, draft=models.USUAL_DRAFT, sampling="greedy")


def ratio(run: Run, cell: Cell, base: Cell | None = None) -> float | None:
    """How many times as fast as ``base``, or as plain decoding."""
    seconds, base_seconds = median(run, cell), median(run, base or plain_of(cell))
    return base_seconds / seconds if seconds and base_seconds else None


def over_others(run: Run, cell: Cell) -> float | None:
    """How many times as fast as the faster of llama.cpp's own ways to speculate."""
    plain = plain_of(cell)
    found = [r for kind in (LOOKUP, CHAIN) if (r := ratio(run, cell, replace(plain, kind=kind)))]
    return min(found) if found else None


def mean(values: Iterable[float | None]) -> float | None:
    """Geometric; None without values."""
    found = [value for value in values if value]
    return statistics.geometric_mean(found) if found else None


def ranged(values: Iterable[float | None]) -> Point | None:
    """Their geometric mean, the least and the largest."""
    found = [value for value in values if value]
    return (statistics.geometric_mean(found), min(found), max(found)) if found else None


def growth(points: dict[float, Point], what: str) -> str:
    """How the last of some points compares with the first, as a sentence's end; empty for fewer than two."""
    if len(points) < 2:
        return ""
    (x0, first), (x1, last) = min(points.items()), max(points.items())
    exponent = math.log(last[0] / first[0]) / math.log(x1 / x0)
    ends = f"{first[0]:.3g} at {x0:g}, {last[0]:.3g} at {x1:g}"
    return f"{x1 / x0:.3g} times the {what} costs {last[0] / first[0]:.2g} times as much ({ends}; power {exponent:.2f})"
