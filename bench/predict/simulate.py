"""What devices would see that nobody has measured, and how far such predictions are off where something was.

python -m bench.predict.simulate                  tables in Markdown
python -m bench.predict.simulate --check          the second one only
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Any

from bench.matrix.cell import MIB
from bench.measure import record
from bench.predict.devices import ARCHITECTURES, DEVICES, Device
from bench.predict.forecast import Forecast, forecast, header_of
from bench.program import run_program
from cadcpp.errors import ConfigError
from cadcpp.gguf.header import Header, read_header
from cadcpp.models.catalog import Pair, pairs

RANGE = (0.6, 0.8)  # agreement of the catalogue's pairs, assumed
DEMO = 0.7  # the demo's, by `cadcpp models make-draft`: the share of the verifier's tokens that its draft guesses first
_MEASURED = record.ROOT / "bench" / "measured"
_PLENTY = 4 << 30
# How runs in bench/measured/wall.jsonl name their places: overcommit -> MiB for everything, disk -> bytes/s.
_BUDGETS_MIB = {1.1: 1060, 1.3: 900, 2.0: 600}
_DISKS = {"100 MiB/s": 100 * MIB, "400 MiB/s": 400 * MIB, "as is": None}


@dataclass(frozen=True, slots=True)
class Cell:
    """A run of cadcpp that was measured, and seconds per token: measured, predicted from the demo pair's agreement
    alone, and predicted from the tokens a pass that the run had."""

    place: str
    measured: float
    predicted: float
    given: float | None


def check() -> list[Cell]:
    """Every run on the demo pair with the default settings, beside its prediction."""
    found = []
    for place, run, cast in _runs("cadcpp, 64 rows", "cost model"):
        rows = round(run["stats"]["drafted"] / run["stats"]["passes"]) if "stats" in run else 0
        given = cast.given(rows + 1, run["pass"]) if rows else None
        found.append(Cell(place, run["s_per_token"], cast.drafted_s, given))
    return found


def check_plain() -> list[Cell]:
    """The same for plain llama.cpp."""
    runs = _runs("plain llama.cpp", "plain llama.cpp")
    return [Cell(place, run["s_per_token"], cast.mapped_s, None) for place, run, cast in runs]


def host(verifier: Header, ram: int, disk: float) -> Device:
    """The machine that was measured, as its plain cells show it: in memory, one row at a time, and reading a prompt."""
    base_s, row_s = plain_costs()
    n_weights = sum(prod(tensor.shape) for tensor in verifier.tensors)
    speeds = {"memory_bytes_per_s": verifier.n_bytes / base_s, "flops": 2 * n_weights / row_s}
    return Device(name="here", ram=ram, disk_bytes_per_s=disk, latency_s=0.0, source="measured", **speeds)


def plain_costs() -> tuple[float, float]:
    """Seconds of a pass with one row, and of every further one, from plain llama.cpp in memory.

    A row's is the median slope between the first tokens of prompts of different length, since one run read the file.
    """
    runs = [r for r in read("sweep") if r["place"] == "in memory"]
    prompts = {r["case"]: r["prompt_tokens"] for r in read("wall") if "prompt_tokens" in r}
    plain = [r for r in runs if r["system"] == "plain llama.cpp"]
    points = [(prompts[r["case"]], r["first_s"]) for r in plain]
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x1 != x2]
    return statistics.median(r["s_per_token"] for r in plain), statistics.median(slopes)


def disk_as_is() -> float:
    """Bytes a second of the disk without a limit, from cadcpp's plain decoding."""
    (run,) = [r for r in read("wall") if r["disk"] == "as is" and r["system"].strip() == "without tree"]
    return float(run["stats"]["streamed_bytes_per_pass"] / run["s_per_token"])


def _runs(limited: str, in_memory: str) -> Iterator[tuple[str, dict[str, Any], Forecast]]:
    """Place, what was measured there with a system with a memory limit or in memory, and its forecast."""
    headers = read_header(record.demo_verifier()), read_header(record.demo_draft())
    as_is = disk_as_is()
    for run in (run for run in read("wall") if run["system"] == limited):
        ram = _BUDGETS_MIB[run["budget"]] * MIB
        device = host(headers[0], ram, _DISKS[run["disk"]] or as_is)
        yield f"{run['disk']}, {ram // MIB} MiB", run, forecast(*headers, device, DEMO, 2048)
    for run in read("sweep"):
        if run["place"] == "in memory" and run["system"] == in_memory:
            yield "in memory", run, forecast(*headers, host(headers[0], _PLENTY, as_is), DEMO, 2048)


def read(name: str) -> list[dict[str, Any]]:
    """What was measured, run by run."""
    return [json.loads(line) for line in (_MEASURED / f"{name}.jsonl").read_text("utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.predict.simulate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="leave out the devices")
    options = parser.parse_args()
    if not options.check:
        show_devices()
    show_check()


def show_devices() -> None:
    low, high = (f"{share:.0%}" for share in RANGE)
    print("# Predictions, not measurements\n")
    print(
        "Seconds per token for the catalogue's pairs, with 4096 tokens of context. How often a draft agrees with its\n"
        f"verifier was not measured: {low} and {high} are assumed. Mixtures of experts are left out; hybrids are in\n"
        "`python -m bench.predict.hybrids`. The gain is over llama.cpp with a memory-mapped file, which is taken to\n"
        "read all of a file that does not fit for every token."
    )
    for device in DEVICES:
        print(f"\n## {device.name}: predicted\n\n{device.source}.\n")
        print(f"| verifier | size | read a pass | llama.cpp, mapped | cadcpp, no draft | {low} | {high} | gain |")
        print("|---|---|---|---|---|---|---|---|")
        for name, pair in pairs().items():
            if pair.draft and {name, pair.draft.name} <= set(ARCHITECTURES):
                print(_line(name, pair, device))


def _line(name: str, pair: Pair, device: Device) -> str:
    draft, verifier = (header_of(entry, ARCHITECTURES[entry.name]) for entry in pair.models)
    size = f"| {name} | {verifier.n_bytes / 1e9:.1f} GB |"
    try:
        casts = [forecast(verifier, draft, device, share, 4096) for share in RANGE]
    except ConfigError:
        return f"{size} does not fit | | | | | |"
    plan, seconds = casts[0].plan, [cast.drafted_s for cast in casts]
    plain = [casts[0].mapped_s, casts[0].plain_s]
    gains = " to ".join(f"{plain[0] / s:.1f}" for s in seconds)
    reads = f"{plan.read_bytes / 1e9:.2f} GB" if plan.streams else "nothing"
    return (
        f"{size} {reads} | {' | '.join(f'{s:.2g}' if s < 10 else f'{s:.0f}' for s in (*plain, *seconds))} | {gains}x |"
    )


def show_check() -> None:
    cells, (base_s, row_s) = check(), plain_costs()
    print("\n# How far such predictions were off here\n")
    print(
        "The demo pair, seconds per token (geometric means). This machine's figures are from plain decoding alone:\n"
        f"{base_s * 1e3:.0f} ms a pass, {row_s * 1e3:.1f} ms for every further row, {disk_as_is() / 1e9:.1f} GB/s from "
        f"the disk as it is. Predicted from {DEMO:.0%} agreement,\nand from the tokens a pass that each run had.\n"
    )
    print("| place | runs | measured | from agreement | error | from tokens a pass | error | plain llama.cpp | error |")
    print("|---|---|---|---|---|---|---|---|---|")
    plain = check_plain()
    for place in dict.fromkeys(cell.place for cell in cells):
        here, there = ([cell for cell in them if cell.place == place] for them in (cells, plain))
        row = [len(here), f"{_mean(here, 'measured'):.3f}", *_beside(here, "predicted"), *_beside(here, "given")]
        print(f"| {place} | {' | '.join(map(str, [*row, *_beside(there, 'predicted')]))} |")
    print()
    for what, name in (("predicted", "agreement"), ("given", "tokens a pass")):
        off = sorted(map(abs, errors(cells, what)))
        print(f"Error of a single run, from {name}: median {statistics.median(off):.0%}, worst {off[-1]:.0%}.")


def _beside(cells: Sequence[Cell], what: str) -> tuple[str, str]:
    """A prediction's mean, and its error."""
    known = [cell for cell in cells if getattr(cell, what) is not None]
    if not known:
        return "", ""
    mean = _mean(known, what)
    return f"{mean:.3f}", f"{mean / _mean(known, 'measured') - 1:+.0%}"


def _mean(cells: Sequence[Cell], what: str) -> float:
    return statistics.geometric_mean(getattr(cell, what) for cell in cells)


def errors(cells: Sequence[Cell], what: str) -> list[float]:
    """Relative errors, run by run."""
    return [getattr(cell, what) / cell.measured - 1 for cell in cells if getattr(cell, what) is not None]


if __name__ == "__main__":
    run_program(main)
