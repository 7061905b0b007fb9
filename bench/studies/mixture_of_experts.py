"""A mixture of experts larger than memory (cgroup): plain llama.cpp and cadcpp, both without drafts.

The kernel counts what is read.

The model is random (1.3 GB, 12 layers, 32 experts of which a token uses 4), so its router spreads tokens evenly: the
worst case for keeping hot experts, and right for counting reads.
"""

import argparse
import statistics
import sys
from pathlib import Path

from bench.matrix.cell import MIB, Place, measure
from bench.measure import record
from bench.measure.memory_wall import why_not
from tests.support.tinygguf import tiny_mixture

PROMPT = "It was a dark and stormy night."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.mixture_of_experts", description=__doc__)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--disk", type=int, default=400, help="MiB/s; 0 is as fast as it is")
    parser.add_argument("--overcommit", type=float, default=1.3)
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"no memory limit here: {reason}")
    model = make(record.models() / "mixture-1.3GB-Q8_0.gguf")
    place = Place(int(model.stat().st_size / options.overcommit) // MIB, options.disk or None)
    print(f"{'system':<20}{'s/token':>9}{'read, all MB':>14}{'peak MiB':>10}   ({place})")
    for name, command in commands(model, place, options.tokens).items():
        results = [measure(place.limits, command, model) for _ in range(options.runs)]
        for result in results:
            record.append("mixture", {"place": place.key, "system": name, **result})
            if "error" in result:
                sys.exit(f"{name} failed: {result['error']}")
        seconds = statistics.median(r["s_per_token"] for r in results)
        read = statistics.median(r["read_bytes"] for r in results)
        print(f"{name:<20}{seconds:9.3f}{read / 1e6:14.0f}{max(r['peak_bytes'] for r in results) >> 20:10d}")


def make(path: Path) -> Path:
    """Write the model, once."""
    if not path.exists():
        print(f"writing {path}")
        part = path.with_suffix(".part")
        tiny_mixture(part, n_layer=12, n_embd=1024, n_ff=1024, n_experts=32, n_used=4)
        part.rename(path)
    return path


def commands(model: Path, place: Place, n: int) -> dict[str, list[str]]:
    shared = ["-m", str(model), "-p", PROMPT, "-n", str(n), "--ctx", "512"]
    ours = ["--speculative", "off", "--temp", "0", "--json", "--ram", f"{place.ram}MiB"]
    python = [sys.executable, "-m"]
    return {
        "plain llama.cpp": [*python, "bench.baselines.plain", *shared],
        "cadcpp": [*python, "cadcpp", "generate", *shared, *ours],
    }


if __name__ == "__main__":
    main()
