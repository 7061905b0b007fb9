"""What the report measures: its sections, and the cells of each. A cell that several sections have is measured once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from bench.matrix.cell import MEMORY, Cell, Place
from bench.matrix.systems import CHAIN, LOOKUP, OURS, PLAIN, SAME
from bench.matrix.workloads import CASES, COPIES

BUDGET = 900  # MiB: 1.3x overcommit, for the demo verifier of 1133 MiB
AS_IS, MEDIUM, SLOW = Place(BUDGET), Place(BUDGET, 400), Place(BUDGET, 100)
VERIFIER_MIB = 1133
ALL = (PLAIN, LOOKUP, CHAIN, OURS, "draft")
BUDGETS = {"0.8": 1416, "1": 1133, "1.1": 1030, "1.3": BUDGET, "1.5": 755, "2": 566, "2.5": 453, "3": 378, "4": 283}
ROWS = (8, 16, 32, 64, 128, 256)
CONTEXTS = (256, 1024, 2048, 4096, 8192)
SIZES = ("0.3GB", "0.6GB", "1.2GB", "2.4GB", "4GB")
DRAFTS = ("useless", "Q2_K", "Q4_K_M", "Q8_0")
PIECES = ("tree", "pinning", "stream", "lock")
_TOKENS = {None: 40, 400: 40, 100: 32}  # by disk speed
_SLOW_TOKENS = {None: 6, 400: 4, 100: 4}  # of systems that read the whole file for nearly every token


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report."""

    key: str
    title: str
    seconds: float  # that it takes, about: its share of the first turn; what it leaves over the next may have
    cells: tuple[Cell, ...]


def cell(place: Place, workload: str, kind: str, n: int = 0, **more: Any) -> Cell:
    return Cell(place=place, workload=workload, kind=kind, n=n or tokens(place, kind), **more)


def tokens(place: Place, kind: str) -> int:
    if place == MEMORY:
        return _TOKENS[None]
    slow = _SLOW_TOKENS[place.disk]
    return {PLAIN: slow, SAME: slow, LOOKUP: slow + 2, CHAIN: 3 * slow, "without-tree": slow}.get(
        kind, _TOKENS[place.disk]
    )


def sections(quick: bool = False, n: int | None = None) -> list[Section]:
    """All of them; ``n`` tokens at most in every cell, for trying things out."""
    makers = {
        "wall": ("With a memory limit (cgroup)", 905, limited),
        "overcommit": ("How cost grows with overcommit", 190, overcommit),
        "ram": ("In memory", 385, in_memory),
        "ablation": ("What each piece is worth", 245, ablation),
        "sweep": ("Trees of fixed sizes, and how cost grows with rows", 450, sweep),
        "staged": ("A draft for the draft", 310, staged),
        "agreement": ("Agreement against speed", 130, agreement),
        "footprint": ("Memory", 35, footprint),
        "first": ("Loading, and the first token", 80, first),
        "overhead": ("Overhead", 62, overhead),
        "context": ("How cost grows with context", 260, context),
        "size": ("How cost grows with the model", 200, size),
    }
    return [
        Section(key, title, seconds, tuple(_short(c, n) for c in make(quick)))
        for key, (title, seconds, make) in makers.items()
    ]


def _short(cell: Cell, n: int | None) -> Cell:
    return replace(cell, n=min(n, cell.n)) if n else cell


def all_cells(n: int | None = None) -> list[Cell]:
    """Every cell of the whole report, once."""
    return list({cell.id: cell for section in sections(n=n) for cell in section.cells}.values())


def limited(quick: bool) -> Iterator[Cell]:
    cases = ("chat",) if quick else ("chat", "code", "story", "summary")
    for place, kinds in {AS_IS: ALL, MEDIUM: (PLAIN, OURS) if quick else ALL}.items():
        for case, kind in product(cases, kinds):
            yield cell(place, case, kind, repeats=2 if place == AS_IS else 1)
    if not quick:
        for kind in (PLAIN, CHAIN, OURS):
            yield cell(SLOW, "chat", kind)
        for kind in (PLAIN, OURS):
            yield cell(SLOW, "code", kind)


def overcommit(quick: bool) -> Iterator[Cell]:
    """Where a draft finds no room any more, the text itself is drafted from."""
    for factor, ram in BUDGETS.items():
        if not quick or factor in ("1.3", "2"):
            kinds = (PLAIN, OURS, "ngram") if float(factor) >= 3 else (PLAIN, OURS)
            yield from (cell(Place(ram), "chat", kind) for kind in kinds)


def in_memory(quick: bool) -> Iterator[Cell]:
    for case in ("chat", "code") if quick else CASES | COPIES:
        for kind in (*ALL, "ngram") if case in COPIES else ALL:
            yield cell(MEMORY, case, kind, repeats=1 if quick else 2)
        yield cell(MEMORY, case, SAME)


def ablation(quick: bool) -> Iterator[Cell]:
    for case in ("chat",) if quick else ("chat", "code"):
        for kind in (PLAIN, "rows-64", "llmcad", OURS):
            yield cell(MEMORY, case, kind)
        if not quick:
            for kind in (PLAIN, "kernel", "turns-steady", "turns-llmcad", "turns", OURS):
                yield cell(MEDIUM, case, kind)
    if not quick:
        yield from (cell(AS_IS, "chat", kind) for kind in (OURS, *(f"without-{piece}" for piece in PIECES)))


def sweep(quick: bool) -> Iterator[Cell]:
    places = (MEMORY,) if quick else (MEMORY, AS_IS, MEDIUM)
    for place, case in product(places, ("chat",) if quick else ("chat", "code")):
        n = 24 if place == MEDIUM else 32
        yield from (cell(place, case, kind) for kind in (PLAIN, OURS))
        if not quick and (place, case) != (MEDIUM, "code"):
            yield cell(place, case, "llmcad")
        few = () if place == MEDIUM else (2, 4)
        if case == "chat" and not quick:
            yield cell(place, case, "rows-1", 8)
        for rows in (8, 64) if quick else (*few, *(ROWS if place == MEMORY else ROWS[:-1])):
            yield cell(place, case, f"rows-{rows}", tokens(place, OURS) if rows == 64 else n)


def staged(quick: bool) -> Iterator[Cell]:
    for case, sampling in product(("code",) if quick else ("code", "chat", "edit"), ("greedy", "top-k")):
        if sampling == "top-k" and (quick or case == "chat"):
            continue
        yield cell(MEMORY, case, "off", sampling=sampling)
        few = quick or case == "chat" or (case, sampling) == ("edit", "top-k")
        for draft in ("Q2_K",) if few else ("Q2_K", "Q4_K_M"):
            for kind in ("chain-8", "tree", "stages"):
                yield cell(MEMORY, case, kind, draft=draft, sampling=sampling)


def agreement(quick: bool) -> Iterator[Cell]:
    for draft in ("Q2_K", "Q4_K_M") if quick else DRAFTS:
        for case in ("chat",) if quick else ("chat", "code"):
            yield from (cell(MEMORY, case, kind, draft=draft) for kind in (PLAIN, "agree", OURS) if _once(kind, draft))
        if not quick:
            yield from (cell(MEDIUM, "chat", kind, draft=draft) for kind in (PLAIN, OURS) if _once(kind, draft))


def _once(kind: str, draft: str) -> bool:
    """Plain decoding has no draft: it is measured with the usual one's cells."""
    return kind != PLAIN or draft == "Q2_K"


def footprint(quick: bool) -> Iterator[Cell]:
    for kind in ("upstream", "draft") if quick else ("upstream", "lookup", "ngram", "draft"):
        yield cell(MEMORY, "none", f"memory-{kind}", 32)


def first(quick: bool) -> Iterator[Cell]:
    """A single token: the whole run is its time, Python included."""
    for place, case in ((MEDIUM, "tips"),) if quick else ((MEDIUM, "tips"), (MEDIUM, "long"), (SLOW, "tips")):
        yield from (cell(place, case, kind, 1) for kind in ("first-plain", "first"))


def overhead(quick: bool) -> Iterator[Cell]:
    for rows in (64,) if quick else (8, 64):
        yield cell(MEMORY, "none", f"profile-{rows}", 100)


def context(quick: bool) -> Iterator[Cell]:
    for n in (256, 1024) if quick else CONTEXTS:
        yield cell(AS_IS, f"context-{n}", OURS, 32)
        if n <= 1024:
            yield from (cell(AS_IS, f"context-{n}", kind, 6) for kind in (PLAIN, SAME))


def size(quick: bool) -> Iterator[Cell]:
    """In memory, and in the same 900 MiB."""
    for name in ("0.6GB", "1.2GB") if quick else SIZES:
        yield cell(MEMORY, "chat", SAME, size=name)
        for place in (MEMORY, AS_IS):
            yield from (cell(place, "chat", kind, size=name) for kind in (PLAIN, OURS))
