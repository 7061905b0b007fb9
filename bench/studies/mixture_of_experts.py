"""A mixture of experts larger than memory (cgroup): plain llama.cpp, cadcpp without drafts, and with a draft.

The kernel counts what is read. The model has the shape of Qwen3-30B-A3B and writes SmolLM2's text (see
`cadcpp.models.demo_mixture`). Budgets are for everything, a share of the model's file. Plain llama.cpp is told not to
repack weights: at its defaults it copies all of a Q4_0 model, which no such budget has room for.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.matrix import models
from bench.matrix.cell import MIB, Place, measure, prompt
from bench.measure import record
from bench.measure.memory_wall import why_not
from cadcpp.models.demo_mixture import demo_mixture

PLAIN, OWN, DRAFTED = "plain llama.cpp", "cadcpp", "cadcpp, draft"
_CTX = 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.mixture_of_experts", description=__doc__)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--case", default="chat", help="whose prompt")
    parser.add_argument("--share", type=int, nargs="+", default=[25, 50, 75], help="of the file, in percent")
    parser.add_argument("--disk", type=int, nargs="+", default=[400], help="MiB/s; 0 is as fast as it is")
    parser.add_argument("--system", nargs="+", default=[PLAIN, OWN, DRAFTED], choices=[PLAIN, OWN, DRAFTED])
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"no memory limit here: {reason}")
    model = demo_mixture(record.models())
    models.make(models.draft())
    for disk in options.disk:
        for share in options.share:
            place = Place(model.stat().st_size * share // 100 // MIB, disk or None)
            print(f"{f'{share}%, {place}':<42}{'s/token':>9}{'MB/token':>10}{'found':>7}{'a pass':>8}{'peak MiB':>10}")
            for name in options.system:
                runs = [_run(name, model, place, options) for _ in range(options.runs)]
                print(_line(name, runs))


def _run(name: str, model: Path, place: Place, options: argparse.Namespace) -> dict[str, Any]:
    result = measure(place.limits, command(name, model, place, options.case, options.tokens), model)
    record.append("mixture", {"place": place.key, "system": name, "case": options.case, **result})
    if "error" in result:
        sys.exit(f"{name} failed: {result['error']}")
    return result


def _line(name: str, runs: list[dict[str, Any]]) -> str:
    """Medians of the text after its first token."""
    middle = {key: statistics.median(run.get(key, 0.0) for run in runs) for key in ("s_per_token", "read_per_token")}
    rates = [run["hit_rate"] for run in runs if run.get("hit_rate") is not None]
    found = f"{statistics.median(rates):.1%}" if rates else ""
    a_pass = statistics.median(run.get("counts", {}).get("pass", 1.0) for run in runs)
    peak = max(run["peak_bytes"] for run in runs) >> 20
    read = f"{middle['read_per_token'] / 1e6:10.1f}"
    return f"{name:<42}{middle['s_per_token']:9.3f}{read}{found:>7}{a_pass:8.2f}{peak:10d}"


def command(name: str, model: Path, place: Place, case: str, n: int) -> list[str]:
    shared = ["-m", str(model), "-p", prompt(case), "-n", str(n), "--ctx", str(_CTX)]
    if name == PLAIN:
        return [sys.executable, "-m", "bench.baselines.plain", *shared, "--same-settings"]
    drafted = ["-d", str(models.draft())] if name == DRAFTED else ["--speculative", "off"]
    ours = ["--temp", "0", "--json", "--ram", f"{place.ram}MiB", *drafted]
    return [sys.executable, "-m", "cadcpp", "generate", *shared, *ours]


if __name__ == "__main__":
    main()
