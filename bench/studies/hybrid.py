"""A hybrid larger than memory (cgroup): llama.cpp, plain and with chains, and cadcpp, without drafts and with chains.

The kernel counts what is read and held. The verifier is SmolLM2 as a hybrid of the lfm2 architecture, widened to
1.2 GB: its texts are SmolLM2's, its bytes and its work a hybrid's. The draft is SmolLM2 in a smaller type.
llama.cpp's own speculation is left out where it is not built (make bench-chain).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.baselines import llama_speculative
from bench.matrix import models
from bench.matrix.cell import Place, measure, prompt
from bench.measure import record
from bench.measure.memory_wall import why_not
from bench.program import run_program
from cadcpp.models.demo import hybrid_verifier

CTX = 2048
LIMIT = 900  # MiB
LEAST = 6  # tokens of those that read the file for every one of them
CHAIN = 8  # tokens that llama.cpp drafts at most


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.hybrid", description=__doc__)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--disks", type=int, nargs="+", default=[0, 400], help="MiB/s; 0 is as fast as it is")
    parser.add_argument("--cases", nargs="+", default=["chat", "code"])
    parser.add_argument("--drafts", nargs="+", default=["Q2_K", "Q4_K_M"])
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"no memory limit here: {reason}")
    verifier = hybrid_verifier(record.models())
    drafts = {kind: models.draft(kind) for kind in options.drafts}
    for path in drafts.values():
        models.make(path)
    print("| disk | text | system | s/token | x | tokens a pass | read a pass, MB | peak, MB | planned, MB |")
    print(f"|{'---|' * 9}")
    for disk in options.disks:
        for case in options.cases:
            _compare(Place(LIMIT, disk or None), case, verifier, drafts, options.tokens)


def _compare(place: Place, case: str, verifier: Path, drafts: dict[str, Path], n: int) -> None:
    """Lines of the table; ends with an error if a text of cadcpp is not plain decoding's."""
    plain_s, written = 0.0, list[int]()
    for name, command in commands(place, prompt(case), verifier, drafts, n).items():
        found = measure(place.limits, command, verifier)
        if "error" in found:
            sys.exit(f"{name} failed: {found['error']}")
        planned = _planned(command) if "cadcpp" in command else None
        record.append("hybrid", {"place": place.key, "case": case, "system": name, "planned": planned, **found})
        plain_s = plain_s or found["s_per_token"]
        print(_line(place, case, name, found, plain_s, planned), flush=True)
        if planned and found["tokens"][: len(written)] != written[: len(found["tokens"])]:
            sys.exit(f"{name} wrote another text than without drafts")
        written = max(written, found["tokens"] if planned else [], key=len)


def commands(place: Place, text: str, verifier: Path, drafts: dict[str, Path], n: int) -> dict[str, list[str]]:
    """The slowest first, by name; cadcpp without drafts before those with."""
    python, shared = [sys.executable, "-m"], ["-m", str(verifier), "-p", text, "--ctx", str(CTX)]
    ours = [*python, "cadcpp", "generate", *shared, "--temp", "0", "--json", "--ram", f"{place.ram}MiB"]
    few = str(min(n, LEAST))
    theirs = drafts if llama_speculative.BINARY.exists() else {}
    return {
        "plain llama.cpp": [*python, "bench.baselines.plain", *shared, "-n", few],
        **{
            f"llama.cpp, chain of {CHAIN}, {kind}": llama_speculative.command(
                str(verifier), str(path), text, n, CHAIN, CTX
            )
            for kind, path in theirs.items()
        },
        "cadcpp, no drafts": [*ours, "-n", str(min(n, 2 * LEAST)), "--speculative", "off"],
        "cadcpp, n-grams": [*ours, "-n", str(n)],
        **{f"cadcpp, {kind}": [*ours, "-n", str(n), "-d", str(path)] for kind, path in drafts.items()},
    }


def _planned(command: list[str]) -> int:
    """Bytes that `cadcpp plan` says of a run."""
    kept = [part for flag in ("-m", "-d", "--ctx", "--ram") if flag in command for part in _option(command, flag)]
    tree = [] if "off" not in command else ["--max-tree-size", "1"]
    plan = [sys.executable, "-m", "cadcpp", "plan", *kept, *tree, "--disk-speed", "400MiB", "--json"]
    done = subprocess.run(plan, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)["peak"])


def _option(command: list[str], flag: str) -> list[str]:
    at = len(command) - 1 - command[::-1].index(flag)  # the first -m is Python's
    return command[at : at + 2]


def _line(place: Place, case: str, name: str, found: dict[str, Any], plain_s: float, planned: int | None) -> str:
    tokens = f"{found['counts']['pass']:.2f}" if "counts" in found else "1"
    expected = f"{planned / 1e6:.0f}" if planned else ""
    figures = f"{found['s_per_token']:.3f} | {plain_s / found['s_per_token']:.1f} | {tokens}"
    read = f"{found['read_per_pass'] / 1e6:.0f}" if "read_per_pass" in found else ""
    held = f"{read} | {found['peak_bytes'] / 1e6:.0f} | {expected}"
    return f"| {place.disk_name} | {case} | {name} | {figures} | {held} |"


if __name__ == "__main__":
    run_program(main)
