"""What the project set out to reach, and whether a run did."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.matrix.cell import MEMORY, MIB, Cell, Place
from bench.matrix.grid import AS_IS, DRAWN, GOOD_DRAFT, MEDIUM, ROWS, SLOW, cell
from bench.matrix.systems import OTHERS, OURS
from bench.matrix.workloads import CASES
from bench.measure.neighbours import BUSY, TWIN
from bench.measure.results import Run, differing
from bench.report.statistics import mean, median, over_others, ratio

_SIZES = 4  # of which one may be called the best
WALL_CASES = ("chat", "code", "story", "summary")
_LIMITED = {AS_IS: (12, 9), MEDIUM: (13, 10), SLOW: (18, 14)}  # times plain llama.cpp's speed, greedy and drawn


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that is to be at least, or at most, another one."""

    text: str
    value: float | None
    limit: float
    at_least: bool = True

    @property
    def reached(self) -> bool | None:
        """None if it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def sign(self) -> str:
        return "at least" if self.at_least else "at most"


def goals(run: Run) -> list[Goal]:
    return [*_exactness(run), *_wall(run), *_memory(run), *_neighbours(run), *_techniques(run), *_rest(run)]


def _exactness(run: Run) -> Iterable[Goal]:
    ours = [found for id, found in differing(run).items() if id.split("/")[2] not in OTHERS]
    wrong = float(sum(map(bool, ours))) if ours else None
    yield Goal("cells of cadcpp whose text is not plain decoding's", wrong, 0, False)


def _wall(run: Run) -> Iterable[Goal]:
    for place in (AS_IS, MEDIUM, SLOW):
        cells = [cell(place, case, OURS) for case in WALL_CASES]
        for name, sampling, limit in zip(("greedy", "T 0.8"), ("greedy", DRAWN), _LIMITED[place], strict=True):
            drawn = (replace(c, sampling=sampling) for c in cells)
            text = f"disk {place.disk_name}, {name}: x plain llama.cpp, mean (LLMCad's best: 9.3)"
            yield Goal(text, mean(ratio(run, c) for c in drawn), limit)
        others = mean(over_others(run, c) for c in cells)
        yield Goal(f"disk {place.disk_name}: x llama.cpp's own speculation, mean (LLMCad's: 2.0)", others, 2.0)
        yield Goal(f"disk {place.disk_name}: bytes read of bytes planned, a pass", _reading(run, cells), 1.05, False)
    for name, sampling, limit in (("greedy", "greedy", 20), ("T 0.8", DRAWN, 15)):
        good = cell(MEDIUM, "chat", OURS, draft=GOOD_DRAFT, sampling=sampling)
        yield Goal(f"disk 400 MiB/s, chat, {GOOD_DRAFT} draft, {name}: x plain llama.cpp", ratio(run, good), limit)
    saved = mean(_read_ratio(run, cell(AS_IS, case, OURS)) for case in WALL_CASES)
    yield Goal("disk as is: times fewer bytes read a token than plain (LLMCad's energy: 4.35)", saved, 4.35)


def _reading(run: Run, cells: list[Cell]) -> float | None:
    found = []
    for result in (run.of(c.id) for c in cells):
        read, planned = result.median("read_per_pass"), result.median("streamed_bytes_per_pass")
        if read and planned:
            found.append(read / planned)
    return mean(found)


def _read_ratio(run: Run, ours: Cell) -> float | None:
    plain, own = (median(run, c, "read_per_token") for c in (replace(ours, kind="plain"), ours))
    return plain / own if plain and own else None


def _memory(run: Run) -> Iterable[Goal]:
    cells = [cell(MEMORY, case, OURS) for case in CASES]
    found = [r for r in (ratio(run, c) for c in cells) if r]
    yield Goal("in memory: x plain llama.cpp, worst workload", min(found, default=None), 1.0)
    for name, sampling, limit in (("greedy", "greedy", 1.4), ("T 0.8", DRAWN, 1.25)):
        drawn = [cell(MEMORY, case, OURS, sampling=sampling) for case in WALL_CASES]
        yield Goal(f"in memory, {name}: x plain llama.cpp, mean", mean(ratio(run, c) for c in drawn), limit)
    yield Goal("in memory: x llama.cpp's own speculation, mean", mean(over_others(run, c) for c in cells), 1.0)
    useless = mean(ratio(run, cell(MEMORY, case, OURS, draft="useless")) for case in ("chat", "code"))
    yield Goal("in memory: x plain llama.cpp with a useless draft", useless, 0.95)


def _neighbours(run: Run) -> Iterable[Goal]:
    def multiple(place: Place, other: str) -> float | None:
        return ratio(run, cell(place, "chat", OURS, beside=other))

    for other, name in {BUSY: "a busy process", TWIN: "its like"}.items():
        yield Goal(f"in memory, each beside {name}: x plain llama.cpp", multiple(MEMORY, other), 1.0)
    alone, beside = multiple(MEDIUM, ""), multiple(MEDIUM, BUSY)
    share = beside / alone if alone and beside else None
    yield Goal("400 MiB/s, each beside a busy process: of the multiple without", share, 0.8)


def _techniques(run: Run) -> Iterable[Goal]:
    def gain(kind: str, base: str) -> float | None:
        pairs = [(cell(MEDIUM, case, kind), cell(MEDIUM, case, base)) for case in ("chat", "code")]
        return mean(ratio(run, *pair) for pair in pairs)

    yield Goal("400 MiB/s: trees alone, x plain (published: 2.6 to 4.3)", gain("kernel", "plain"), 2.6)
    yield Goal("400 MiB/s: cost model, x LLMCad's fallback", gain("turns", "turns-llmcad"), 1.0)
    yield Goal("400 MiB/s: pipeline, x taking turns (published: up to 1.51)", gain(OURS, "turns"), 1.0)
    for place in (MEMORY, AS_IS, MEDIUM):
        yield Goal(f"{place}: cost model, x the best fixed size", best_fixed(run, place), 0.97)


def best_fixed(run: Run, place: Place) -> float | None:
    """The cost model's speed in units of that of the size that is best on average; None where few were measured."""
    shares = [
        share
        for rows in ROWS
        if (share := mean(ratio(run, cell(place, case, OURS), sized(place, case, rows)) for case in ("chat", "code")))
    ]
    return min(shares) if len(shares) >= _SIZES else None


def sized(place: Place, case: str, rows: int) -> Cell:
    return cell(place, case, f"rows-{rows}")


def _rest(run: Run) -> Iterable[Goal]:
    for sampling, limit, published in (("greedy", 0.23, 0.23), ("top-k", 0.4, 0.35)):
        best = traffic(run, cell(MEMORY, "code", "stages", draft=GOOD_DRAFT, sampling=sampling))
        text = f"code, {sampling}: weights touched a token, two stages, {GOOD_DRAFT} draft (published: {published})"
        yield Goal(text, best, limit, False)
    yield Goal("100 MiB/s: first token, in reads of the file", reads(run, cell(SLOW, "tips", "first")), 1.25, False)
    up, ours = (median(run, cell(MEMORY, "none", f"memory-{k}"), "answered_bytes") for k in ("upstream", "ngram"))
    yield Goal("memory of cadcpp.Llama, x llama_cpp.Llama", ours / up if ours and up else None, 1.0, False)
    yield Goal("Python's share of a round of 64 rows", python_share(run, 64), 0.05, False)


def traffic(run: Run, found: Cell) -> float | None:
    """Bytes of both models' weights that all decodes touch, a token, relative to plain decoding; from exact counts."""
    passes, decodes, n = (median(run, found, key) for key in ("passes", "draft_decodes", "n"))
    if not (passes and n) or decodes is None:
        return None
    verifier, draft = (median(run, found, key) for key in ("verifier_bytes", "draft_bytes"))
    return (passes + decodes * draft / verifier) / n if verifier and draft else None


def reads(run: Run, found: Cell) -> float | None:
    """Seconds of the whole run, in units of reading the verifier's file once."""
    seconds, size = (median(run, found, key) for key in ("seconds", "verifier_bytes"))
    return seconds / (size / (found.place.disk * MIB)) if seconds and size and found.place.disk else None


def python_share(run: Run, rows: int) -> float | None:
    runs = run.of(cell(MEMORY, "none", f"profile-{rows}", 100).id).good
    return runs[0]["profile_share"]["Python"] if runs else None
