"""What the report measures: its sections, and the cells of each. A cell that several sections have is measured once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from bench.matrix import models
from bench.matrix.cell import MEMORY, Cell, Place
from bench.matrix.systems import CHAIN, LOOKUP, OURS, PLAIN, SAME
from bench.matrix.workloads import CASES, COPIES
from bench.measure.neighbours import BUSY, TWIN

BUDGET = 900  # MiB: 1.3x overcommit, for the demo verifier of 1133 MiB
AS_IS, MEDIUM, SLOW = Place(BUDGET), Place(BUDGET, 400), Place(BUDGET, 100)
VERIFIER_MIB = 1133
BUDGETS = {"0.8": 1416, "1": 1133, "1.1": 1030, "1.3": BUDGET, "1.5": 755, "2": 566, "2.5": 453, "3": 378, "4": 283}
ROWS = (8, 16, 32, 64, 128, 256)
CONTEXTS = (256, 1024, 2048, 4096, 8192)
SIZES = ("0.3GB", "0.6GB", "1.2GB", "2.4GB", "4GB")
DRAFTS = ("useless", "Q2_K", "Q4_K_M", "Q8_0")
PIECES = ("tree", "pinning", "stream", "lock")
_TOKENS = {None: 40, 400: 40, 100: 32}  # by disk speed
REPLY, DRAWN = 128, "T0.8"  # what the headline is of: replies of so many tokens, greedy and drawn
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
    replies = (PLAIN, SAME, OURS, "off") if place == MEMORY else (OURS,)
    if place in (MEMORY, AS_IS, MEDIUM, SLOW) and kind in replies:
        return REPLY
    if place == MEMORY:
        return _TOKENS[None]
    slow = _SLOW_TOKENS[place.disk]
    return {PLAIN: slow, SAME: slow, LOOKUP: slow + 2, CHAIN: 3 * slow, "without-tree": slow}.get(
        kind, _TOKENS[place.disk]
    )


def sections(quick: bool = False, n: int | None = None) -> list[Section]:
    """All of them; ``n`` tokens at most in every cell, for trying things out."""
    makers = {
        "wall": ("With a memory limit (cgroup)", 1450, limited),
        "ram": ("In memory", 560, in_memory),
        "neighbours": ("Beside other programs", 150, neighbours),
        "ablation": ("What each piece is worth", 200, ablation),
        "sweep": ("Trees of fixed sizes, and how cost grows with rows", 270, sweep),
        "staged": ("A draft for the draft", 150, staged),
        "overcommit": ("How cost grows with overcommit", 110, overcommit),
        "agreement": ("Agreement against speed", 100, agreement),
        "footprint": ("Memory", 35, footprint),
        "first": ("Loading, and the first token", 70, first),
        "overhead": ("Overhead", 45, overhead),
        "context": ("How cost grows with context", 80, context),
        "size": ("How cost grows with the model", 80, size),  # these two have time for all of it alone only
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
    """What is compared stands next to each other; at the slowest disk there is time for few texts."""
    cases = ("chat",) if quick else ("chat", "code", "story", "summary")
    rivals = () if quick else (LOOKUP, CHAIN)
    for place, case in product((AS_IS, MEDIUM), cases):
        yield from (cell(place, case, kind) for kind in (PLAIN, *rivals))
        yield from replies(place, case)
    if quick:
        return
    yield from (cell(SLOW, "chat", kind) for kind in (PLAIN, CHAIN))
    yield from replies(SLOW, "chat")
    yield from (cell(SLOW, "code", kind) for kind in (PLAIN, OURS))


def replies(place: Place, case: str) -> Iterator[Cell]:
    """As people use it: greedy, and drawn."""
    return (cell(place, case, OURS, sampling=sampling) for sampling in ("greedy", DRAWN))


def overcommit(quick: bool) -> Iterator[Cell]:
    """Where a draft finds no room any more, the text itself is drafted from."""
    for factor, ram in BUDGETS.items():
        if factor in (("1.3", "2") if quick else ("1", "1.3", "2", "3", "4")):
            kinds = (PLAIN, OURS, "ngram") if float(factor) >= 3 else (PLAIN, OURS)
            yield from (cell(Place(ram), "chat", kind) for kind in kinds)


def in_memory(quick: bool) -> Iterator[Cell]:
    """Texts that were drawn are compared with what plain decoding draws."""
    for case in ("chat", "code") if quick else CASES | COPIES:
        yield from (cell(MEMORY, case, kind) for kind in (SAME, PLAIN, LOOKUP, CHAIN))
        yield from replies(MEMORY, case)
        if case in COPIES:
            yield cell(MEMORY, case, "ngram")
        if case in ("chat", "code", "story", "summary"):
            yield cell(MEMORY, case, "off", sampling=DRAWN)


def neighbours(quick: bool) -> Iterator[Cell]:
    """Each system alone, beside a process that keeps a core busy, and beside another one of itself."""
    plights = [(MEMORY, ""), (MEMORY, BUSY), (MEMORY, TWIN), *([] if quick else [(MEDIUM, ""), (MEDIUM, BUSY)])]
    for place, other in plights:
        yield from (cell(place, "chat", kind, beside=other) for kind in (PLAIN, OURS))


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
            yield cell(place, case, f"rows-{rows}", tokens(place, "rows-64") if rows == 64 else n)


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
    for case in ("chat",) if quick else ("chat", "code"):
        yield cell(MEMORY, case, PLAIN)
        for draft in ("Q2_K", "Q4_K_M") if quick else DRAFTS:
            yield from (cell(MEMORY, case, kind, _few(draft), draft=draft) for kind in ("agree", OURS))
    if not quick:
        yield cell(MEDIUM, "chat", PLAIN)
        yield from (cell(MEDIUM, "chat", OURS, _few(draft), draft=draft) for draft in DRAFTS)


def _few(draft: str) -> int:
    """Of other drafts than the usual one short replies will do."""
    return 0 if draft == models.USUAL_DRAFT else _TOKENS[None]


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
        n = 0 if name == models.USUAL_SIZE else _TOKENS[None]
        yield cell(MEMORY, "chat", SAME, n, size=name)
        for place in (MEMORY, AS_IS):
            yield cell(place, "chat", PLAIN, n if place == MEMORY else 0, size=name)
            yield cell(place, "chat", OURS, n, size=name)
