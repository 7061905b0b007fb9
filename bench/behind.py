"""The wall bench: plain llama.cpp, speculation by others, and cadcpp, in turn, in less memory than the verifier has.

    python -m bench.behind                    budgets x disks x systems, several runs each; hours
    python -m bench.behind --quick            one cell: 1.3x overcommit, 400 MiB/s; minutes

Every run starts cold in a control group of its own. Where none can be made cadcpp runs in its own budget alone,
with and without trees. All systems write the same text greedily; a run whose tokens differ is reported as such.
"""

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bench import record
from bench.cases import CASES, in_template
from bench.systems import Sizes, System, cadcpp, others, pieces, plain, without
from bench.wall import Wall, why_not
from cadcpp.native.gguf import read_header
from cadcpp.plan import Plan, make_plan

MIB = 1 << 20
DISKS = {"100 MiB/s": 100 * MIB, "400 MiB/s": 400 * MIB, "as is": None}
BUDGETS_MIB = {1.1: 1060, 1.3: 900, 2.0: 600}  # of the whole group; the demo verifier has 1133 MiB
Results = dict[tuple[str, str], list[dict[str, Any]]]  # by case and system


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.behind", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--plain-tokens", type=int, default=6)
    parser.add_argument("--cases", default=",".join(CASES), help="plain llama.cpp writes the first two only")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS_MIB)), help="overcommit")
    parser.add_argument("--disks", default=",".join(DISKS))
    parser.add_argument("--rows", type=int, default=64, help="of a tree at most")
    parser.add_argument("--only", choices=["plain", "cadcpp"], help="leave out others, or all but cadcpp")
    options = parser.parse_args()
    if options.quick:
        options.budgets, options.disks, options.runs, options.only = "1.3", "400 MiB/s", 1, "plain"
        options.cases = "chat,code"
    if reason := why_not():
        print(f"no wall here: {reason}; without one only cadcpp keeps a budget, so it is compared with itself")
        options.disks, options.only = "as is", "cadcpp"
    for budget in map(float, options.budgets.split(",")):
        for disk in options.disks.split(","):
            run_cell(budget, disk, options)


def run_cell(budget: float, disk: str, options: argparse.Namespace) -> None:
    """All systems on all cases, alternating, and one table."""
    wall, found = Wall(BUDGETS_MIB[budget] * MIB, DISKS[disk]), Results()
    for turn in range(options.runs):
        for case, system in systems(budget, disk, options, turn):
            result = run(wall, system)
            cell = {"budget": budget, "disk": disk, "case": case, "system": system.name}
            record.append("wall", {**cell, "command": system.command[1:], **result})
            found.setdefault((case, system.name), []).append(result)
    print(f"\n{budget}x overcommit ({BUDGETS_MIB[budget]} MiB), disk {disk}")
    show(found, DISKS[disk])
    headers = read_header(record.demo_verifier()), read_header(record.demo_draft())
    if not why_not():
        compare(found, make_plan(*headers, ram=wall.ram_bytes or 0, n_ctx=2048, rows=options.rows))


def systems(budget: float, disk: str, options: argparse.Namespace, turn: int) -> Iterator[tuple[str, System]]:
    """What one run of a cell consists of. How long a plain token takes does not depend on the text."""
    cases = options.cases.split(",")
    sizes = Sizes(n_plain=options.plain_tokens, n=options.tokens, rows=options.rows, ram=BUDGETS_MIB[budget])
    for i, case in enumerate(cases):
        prompt = in_template(case)
        if i < 2:
            yield case, without("tree", prompt, sizes) if options.only == "cadcpp" else plain(prompt, sizes)
        if i == 0 and not options.only:
            yield from ((case, system) for system in others(prompt, sizes))
        yield case, cadcpp(prompt, sizes)
        if i == 0 and turn == 0 and not options.only:
            yield from ((case, system) for system in pieces(prompt, sizes))


def run(wall: Wall, system: System) -> dict[str, Any]:
    """One run: what it says of itself, and what the kernel counted."""
    done, usage = wall.run(system.command, record.demo_verifier())
    try:
        return {**asdict(usage), **system.parse(done)}
    except (ValueError, KeyError):
        return {**asdict(usage), "error": (done.stderr or done.stdout)[-300:]}


def show(found: Results, disk: int | None) -> None:
    """A row per case and system: medians, the range of seconds a token, and the ratio to plain."""
    print(
        f"{'case':<12}{'system':<32}{'s/token':>8}{'range':>14}{'x plain':>8}{'first s':>8}{'tok/pass':>9}"
        f"{'MB/token':>9}{'disk':>6}{'peak MiB':>9}  text"
    )
    base = next(iter(found))[1]  # plain llama.cpp, or what stands in for it
    base_s = statistics.median(r["s_per_token"] for (_, s), rs in found.items() if s == base for r in good_of(rs))
    ratios = []
    for (case, system), runs in found.items():
        good = good_of(runs)
        if not good:
            print(f"{case:<12}{system:<32} failed: {runs[-1]['error'].strip().splitlines()[-1:]}")
            continue
        seconds = sorted(r["s_per_token"] for r in good)
        median = statistics.median(seconds)
        ratio = base_s / median
        if system.startswith("cadcpp"):
            ratios.append(ratio)
        stats = good[0].get("stats")
        print(
            f"{case:<12}{system:<32}{median:8.3f}{seconds[0]:7.3f}-{seconds[-1]:<6.3f}{ratio:8.1f}"
            + f"{_median(good, 'first_s'):>8}{_median(good, 'pass'):>9}"
            + (f"{stats['read_bytes_per_token'] / 1e6:9.0f}{_busy(good, disk):>6}" if stats else f"{'':15}")
            + f"{max(r['peak_bytes'] for r in good) >> 20:9d}  {_same(good_of(found.get((case, base), [])), good)}"
        )
    print(f"{'mean':<12}{'cadcpp (geometric)':<32}{'':22}{statistics.geometric_mean(ratios):8.1f}")


def compare(found: Results, plan: Plan) -> None:
    """What was planned beside what the kernel counted."""
    runs = [r for (_, name), rs in found.items() if name.startswith("cadcpp") for r in good_of(rs)]
    reads = [(r["stats"]["read_bytes"] - r["stats"]["pinned_bytes"]) / r["stats"]["passes"] for r in runs]
    peak, read = max(r["peak_bytes"] for r in runs), statistics.median(reads)
    print(f"peak planned {plan.peak >> 20} MiB, was {peak >> 20} MiB: {peak / plan.peak - 1:+.1%}")
    error = read / plan.read_bytes - 1
    print(f"read planned {plan.read_bytes / 1e6:.0f} MB a pass, was {read / 1e6:.0f} MB: {error:+.1%}")


def good_of(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in runs if "error" not in r]


def _median(runs: list[dict[str, Any]], key: str) -> str:
    values = [r[key] for r in runs if key in r]
    return f"{statistics.median(values):.2f}" if values else ""


def _busy(runs: list[dict[str, Any]], disk: int | None) -> str:
    """Share of the decoding time in which the disk, at its limit, delivered what the passes read."""
    if disk is None:
        return ""
    shares = [(r["stats"]["passes"] - 1) * r["stats"]["streamed_bytes_per_pass"] / (r["decode_s"] * disk) for r in runs]
    return f"{statistics.median(shares):.0%}"


def _same(base: list[dict[str, Any]], runs: list[dict[str, Any]]) -> str:
    if "tokens" not in runs[0] or not base:
        return ""
    tokens = base[0]["tokens"]
    n = min(len(tokens), len(runs[0]["tokens"]))
    return "same" if all(r["tokens"][:n] == tokens[:n] for r in runs) else "DIFFERS"


if __name__ == "__main__":
    main()
