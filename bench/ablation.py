"""What each technique is worth, in the shape of LLMCad's ablation (arXiv 2309.04255, section 5.4); and fixed trees.

    python -m bench.ablation              a step at a time: trees, pinning and streaming, fallback, pipeline
    python -m bench.ablation --sweep      trees of fixed sizes beside those of the cost model and of LLMCad

In memory, and in 900 MiB (1.3x overcommit) as root. All systems in turn, on each case; ratios are to plain llama.cpp.
"""

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import record
from bench.behind import DISKS, good_of, run
from bench.cases import CASES, in_template
from bench.systems import PLAIN, Sizes, System, cadcpp, plain
from bench.wall import Wall, why_not

MIB, BUDGET_MIB = 1 << 20, 900
IN_MEMORY = "in memory"
PLACES = (IN_MEMORY, *DISKS)
TURNS, STEADY = ("--no-pipeline",), ("--fallback", "none")
STEPS = {
    "tree": ("--no-pager", *TURNS, *STEADY),
    "+ pinning, streaming": (*TURNS, *STEADY),
    "+ fallback of LLMCad": (*TURNS, "--fallback", "llmcad"),
    "+ cost model instead": TURNS,
    "+ pipeline": (),
}
STEPS_IN_MEMORY = {"tree": STEADY, "+ fallback of LLMCad": ("--fallback", "llmcad"), "+ cost model instead": ()}
ROWS = (8, 16, 32, 64, 128, 256)
Found = dict[tuple[str, str], list[dict[str, Any]]]  # by system and case


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ablation", description=__doc__)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--places", default=f"{IN_MEMORY},400 MiB/s", help=f"of {', '.join(PLACES)}")
    parser.add_argument("--cases", default="chat,code")
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="fixed sizes, for --sweep")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--plain-tokens", type=int, default=6)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--draft", type=Path, default=record.demo_draft())
    options = parser.parse_args()
    unknown = set(options.cases.split(",")) - set(CASES) | set(options.places.split(",")) - set(PLACES)
    if unknown:
        parser.error(f"unknown {sorted(unknown)}; cases are {list(CASES)}, places {list(PLACES)}")
    for place in options.places.split(","):
        if place != IN_MEMORY and (reason := why_not()):
            print(f"{place}: left out, no wall here: {reason}")
            continue
        found = measure(place, options)
        show(place, found)


def measure(place: str, options: argparse.Namespace) -> Found:
    """All systems in turn on each case, as often as asked for."""
    wall = Wall() if place == IN_MEMORY else Wall(BUDGET_MIB * MIB, DISKS[place])
    found = Found()
    for _ in range(options.runs):
        for case in options.cases.split(","):
            for system in systems(place, case, options):
                result = run(wall, system)
                cell = {"place": place, "case": case, "system": system.name, "draft": options.draft.name}
                record.append("sweep" if options.sweep else "ablation", {**cell, **result})
                found.setdefault((system.name, case), []).append(result)
    return found


def systems(place: str, case: str, options: argparse.Namespace) -> Iterator[System]:
    prompt, in_memory = in_template(case), place == IN_MEMORY
    n_plain = options.tokens if in_memory else options.plain_tokens
    ram = None if in_memory else BUDGET_MIB
    sizes = Sizes(n_plain=n_plain, n=options.tokens, rows=64, ram=ram, draft=options.draft)
    yield plain(prompt, sizes)
    if not options.sweep:
        steps = STEPS_IN_MEMORY if in_memory else STEPS
        yield from (cadcpp(prompt, sizes, *settings, name=name) for name, settings in steps.items())
        return
    yield cadcpp(prompt, sizes, name="cost model")
    yield cadcpp(prompt, sizes, "--fallback", "llmcad", name="LLMCad")
    for rows in map(int, options.rows.split(",")):
        yield cadcpp(prompt, replace(sizes, rows=rows), *STEADY, name=f"{rows} rows, always")


def show(place: str, found: Found) -> None:
    """A row per system: the ratio to plain llama.cpp on each case, their geometric mean, and tokens a pass."""
    cases = list(dict.fromkeys(case for _, case in found))
    print(
        f"\n{place}: x plain llama.cpp" + "".join(f"{case:>13}" for case in cases) + f"{'mean':>9}{'tokens/pass':>13}"
    )
    for name in dict.fromkeys(name for name, _ in found):
        cells, ratios, passes = [], [], []
        for case in cases:
            good = good_of(found[name, case])
            if not good:
                cells.append(f"{'failed':>13}")
                continue
            seconds = [r["s_per_token"] for r in good]
            ratio = plain_seconds(found, case) / statistics.median(seconds)
            ratios.append(ratio)
            passes += [r["pass"] for r in good if "pass" in r]
            spread = (max(seconds) - min(seconds)) / statistics.median(seconds) / 2
            cells.append(f"{ratio:9.2f}" + (f"±{spread:3.0%}" if len(seconds) > 1 else "    "))
        mean = f"{statistics.geometric_mean(ratios):9.2f}" if ratios else ""
        print(
            f"{name:<{len(place) + 19}}"
            + "".join(cells)
            + mean
            + (f"{statistics.mean(passes):13.2f}" if passes else "")
        )


def plain_seconds(found: Found, case: str) -> float:
    return statistics.median(r["s_per_token"] for r in good_of(found[PLAIN, case]))


if __name__ == "__main__":
    main()
