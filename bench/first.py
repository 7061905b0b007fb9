"""Time to the first token behind the wall, cold: Python, loading, the prompt, one draw.

In units of the time in which the disk reads the verifier's file once, which no cold start can go below. Plain
llama.cpp reads the file while it loads, and what did not fit once more for every batch of the prompt.
"""

import argparse
import statistics
import sys

from bench import record
from bench.behind import BUDGETS_MIB, DISKS, MIB
from bench.behind import run as run_in
from bench.cases import CASES, in_template
from bench.systems import Sizes, cadcpp, plain
from bench.wall import Wall, why_not

_LONG = " ".join(
    CASES[name] for name in (*CASES, "summary", "translation", "story", "code", "chat")
)  # 510 tokens: one wide pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.first", description=__doc__)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--disks", default="100 MiB/s,400 MiB/s")
    parser.add_argument("--budget", type=float, default=1.3, help=f"overcommit: {', '.join(map(str, BUDGETS_MIB))}")
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"no wall here: {reason}")
    print(f"{'disk':<11}{'prompt':<8}{'system':<24}{'tokens':>7}{'first s':>9}{'reads of the file':>19}")
    for disk in options.disks.split(","):
        for name, prompt in {"short": in_template("story"), "long": _LONG}.items():
            measure(disk, name, prompt, options)


def measure(disk: str, name: str, prompt: str, options: argparse.Namespace) -> None:
    """Both systems on one prompt, in turn."""
    ram, speed = BUDGETS_MIB[options.budget], DISKS[disk]
    wall, sizes = Wall(ram * MIB, speed), Sizes(n_plain=1, n=1, rows=64, ram=ram)
    for system in (plain(prompt, sizes), cadcpp(prompt, sizes)):
        times = []
        for _ in range(options.runs):
            result = run_in(wall, system)
            if "error" in result:
                sys.exit(f"{system.name} failed: {result['error']}")
            times.append(result["seconds"])
            cell = {"budget": options.budget, "disk": disk, "prompt": name, "system": system.name}
            record.append("first", {**cell, **result})
        seconds = statistics.median(times)
        once = record.demo_verifier().stat().st_size / speed if speed else 0.0
        reads = f"{seconds / once:.2f}" if once else ""
        print(f"{disk:<11}{name:<8}{system.name:<24}{result.get('prompt_tokens', ''):>7}{seconds:9.2f}{reads:>19}")


if __name__ == "__main__":
    main()
