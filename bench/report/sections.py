"""Which function writes which section of a report."""

from collections.abc import Callable

from bench.matrix.grid import Section
from bench.measure.results import Run
from bench.report import drafting, resources, scale, speed
from bench.report.part import Part

RENDER: dict[str, Callable[[Run, Section], Part]] = {
    "wall": speed.limited,
    "overcommit": speed.overcommit,
    "ram": speed.in_memory,
    "neighbours": speed.neighbours,
    "ablation": speed.ablation,
    "sweep": drafting.sweep,
    "staged": drafting.staged,
    "agreement": drafting.agreement,
    "footprint": resources.footprint,
    "first": resources.first,
    "overhead": resources.overhead,
    "context": scale.context,
    "size": scale.size,
}
