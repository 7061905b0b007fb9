"""The wall bench: plain llama.cpp and cadcpp, in turn, in less memory than the verifier has.

    python -m bench.behind                    budgets x disks x systems, several runs each
    python -m bench.behind --quick            one cell: 1.3x overcommit, 400 MiB/s

Every run starts cold in a control group of its own. Where none can be made the reason is printed and nothing
is measured. All systems write the same text greedily; a run whose tokens differ is reported as such.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from typing import Any

from bench import record
from bench.cases import CASES
from bench.wall import NoWall, Wall, why_not

MIB = 1 << 20
DISKS = {"100 MiB/s": 100 * MIB, "400 MiB/s": 400 * MIB, "as is": None}
BUDGETS_MIB = {1.1: 1060, 1.3: 900, 2.0: 600}  # of the whole group; the demo verifier has 1133 MiB


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.behind", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--plain-tokens", type=int, default=8)
    parser.add_argument("--cases", default="chat,code", help=f"of {', '.join(CASES)}")
    parser.add_argument("--disks", default=",".join(DISKS))
    parser.add_argument("--rows", default="64,128")
    options = parser.parse_args()
    reason = why_not()
    if reason:
        sys.exit(f"no wall here: {reason}")
    cells = [(1.3, "400 MiB/s")] if options.quick else [(b, d) for b in BUDGETS_MIB for d in options.disks.split(",")]
    for budget, disk in cells:
        run_cell(budget, disk, options)


def run_cell(budget: float, disk: str, options: argparse.Namespace) -> None:
    """All systems on all cases, alternating, and one table."""
    wall, found = Wall(BUDGETS_MIB[budget] * MIB, DISKS[disk]), dict[tuple[str, str], list[dict[str, Any]]]()
    for _ in range(1 if options.quick else options.runs):
        for case in options.cases.split(","):
            for system, command in commands(case, budget, options).items():
                result = run(wall, system, command)
                record.append("wall", {"budget": budget, "disk": disk, "case": case, "system": system, **result})
                found.setdefault((case, system), []).append(result)
    print(f"\n{budget}x overcommit ({BUDGETS_MIB[budget]} MiB), disk {disk}")
    show(found)


def commands(case: str, budget: float, options: argparse.Namespace) -> dict[str, list[str]]:
    verifier, draft, prompt = str(record.demo_verifier()), str(record.demo_draft()), _template(CASES[case])
    python = [sys.executable, "-m"]
    plain = [*python, "bench.plain", "-m", verifier, "-p", prompt, "-n", str(options.plain_tokens)]
    shared = [*python, "cadcpp", "generate", "-m", verifier, "-d", draft, "-p", prompt, "--temp", "0", "--json"]
    shared += ["--ctx", "2048", "--ram", f"{BUDGETS_MIB[budget]}MiB"]
    systems = {"plain llama.cpp": plain}
    for rows in options.rows.split(","):
        systems[f"cadcpp {rows} rows"] = [*shared, "-n", str(options.tokens), "--rows", rows]
    if not options.quick:
        systems["... no tree"] = [*shared, "-n", str(options.plain_tokens), "--speculative", "off"]
        systems["... no paging"] = [*shared, "-n", str(options.tokens // 2), "--no-pager"]
    return systems


def run(wall: Wall, system: str, command: list[str]) -> dict[str, Any]:
    """One run: seconds per token after the first pass, and what the kernel counted."""
    try:
        done, usage = wall.run(command, record.demo_verifier())
    except NoWall as reason:
        sys.exit(str(reason))
    try:
        output = json.loads(done.stdout)
    except ValueError:
        return {"error": done.stderr[-300:], **asdict(usage)}
    if "stats" not in output:
        return {**asdict(usage), "s_per_token": output["seconds_per_token"], "tokens": output["tokens"], "pass": 1.0}
    stats = output["stats"]
    return {
        **asdict(usage),
        "s_per_token": 1 / output["tokens_per_second"],
        "first_s": stats["load_seconds"] + output["prompt_seconds"],
        "tokens": output["tokens"],
        "pass": stats["tokens_per_pass"],
        "token_read_bytes": stats["read_bytes_per_token"],
        "stats": stats,
    }


def show(found: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """A row per case and system: median and range of seconds per token, and the ratio to plain."""
    print(f"{'case':<10}{'system':<20}{'s/token':>9}{'range':>16}{'x plain':>9}{'tok/pass':>9}{'peak MiB':>9}  text")
    plain: dict[str, dict[str, Any]] = {}
    for (case, system), runs in found.items():
        good = [r for r in runs if "error" not in r]
        if not good:
            print(f"{case:<10}{system:<20} {runs[-1]['error'].strip().splitlines()[-1:]}")
            continue
        seconds = sorted(r["s_per_token"] for r in good)
        median = statistics.median(seconds)
        plain.setdefault(case, {"s": median, "tokens": good[0]["tokens"]})
        n = min(len(plain[case]["tokens"]), len(good[0]["tokens"]))
        same = all(r["tokens"][:n] == plain[case]["tokens"][:n] for r in good)
        print(
            f"{case:<10}{system:<20}{median:9.3f}{seconds[0]:8.3f}-{seconds[-1]:<7.3f}{plain[case]['s'] / median:9.1f}"
            f"{good[0]['pass']:9.2f}{max(r['peak_bytes'] for r in good) >> 20:9d}  {'same' if same else 'DIFFERS'}"
        )


def _template(question: str) -> str:
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


if __name__ == "__main__":
    main()
