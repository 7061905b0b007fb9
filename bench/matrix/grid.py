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
ROWS = (2, 4, 8, 16, 32, 64, 128)
CONTEXTS = (256, 1024, 2048, 4096, 8192)
SIZES = ("0.3GB", "0.6GB", "1.2GB", "2.4GB", "4GB")
GOOD_DRAFT = "Q4_K_M"
DRAFTS = ("useless", models.USUAL_DRAFT, GOOD_DRAFT, "Q8_0")
PIECES = ("tree", "pinning", "stream", "lock")
_SWEPT = {MEMORY: ROWS[:5], AS_IS: ROWS[2:6], MEDIUM: ROWS[3:]}  # the sizes about the best one
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
        "ram": ("In memory", 540, in_memory),
        "neighbours": ("Beside other programs", 150, neighbours),
        "ablation": ("What each piece is worth", 290, ablation),
        "sweep": ("Trees of fixed sizes, and how cost grows with rows", 400, sweep),
        "staged": ("A draft for the draft", 140, staged),
        "overcommit": ("How cost grows with overcommit", 110, overcommit),
        "agreement": ("Agreement against speed", 125, agreement),
        "footprint": ("Memory", 35, footprint),
        "first": ("Loading, and the first token", 70, first),
        "overhead": ("Overhead", 45, overhead),
        "context": ("How cost grows with context", 60, context),
        "size": ("How cost grows with the model", 60, size),  # these two have time for all of it alone only
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
        yield cell(place, "chat", PLAIN, 12 if other and place == MEMORY else 0, beside=other)  # seconds a token each
        yield cell(place, "chat", OURS, beside=other)


def ablation(quick: bool) -> Iterator[Cell]:
    for kind in (PLAIN, "rows-64", "llmcad", OURS):
        yield cell(MEMORY, "chat", kind, REPLY)
    if quick:
        return
    for kind in ("kernel", "turns-steady", "turns-llmcad", "turns", OURS):
        yield cell(MEDIUM, "chat", kind, REPLY)
    for piece in PIECES:
        yield cell(AS_IS, "chat", f"without-{piece}", 0 if piece == "tree" else REPLY)
    yield cell(AS_IS, "chat", OURS)


def sweep(quick: bool) -> Iterator[Cell]:
    """Replies of one length, so that sizes are compared on the same text."""
    for place, case in [(MEMORY, "chat")] if quick else product(_SWEPT, ("chat", "code")):
        if case == "code" and place != MEMORY:  # there is no time for them
            continue
        for rows in (8, 64) if quick else _SWEPT[place]:
            yield cell(place, case, f"rows-{rows}", REPLY)
        yield cell(place, case, OURS)
        if not quick:
            yield cell(place, case, "llmcad", REPLY)
        if case == "chat" and not quick:
            yield cell(place, case, "rows-1", 8)


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
        yield cell(MEDIUM, "chat", OURS, draft=GOOD_DRAFT, sampling=DRAWN)


def _few(draft: str) -> int:
    """Of drafts that no goal is of short replies will do."""
    return 0 if draft in (models.USUAL_DRAFT, GOOD_DRAFT) else _TOKENS[None]


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
