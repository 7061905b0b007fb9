"""Charts of recorded results: `python -m bench.chart [RESULTS.jsonl] [CHART.svg]`; needs the `bench` extra."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.record import RESULTS
from bench.systems import PLAIN

BARS = (PLAIN, "llama-cpp-python, prompt lookup", "llama.cpp, chain of 8", "  without tree", "cadcpp")


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "wall.jsonl"
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else source.with_suffix(".svg")
    records = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    draw([r for r in records if "error" not in r and r["budget"] == 1.3], target)
    print(target)


def draw(records: list[dict[str, Any]], target: Path) -> None:
    """Seconds a token by disk and system, medians with their range, over all cases; the scale is logarithmic."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("the chart needs matplotlib: pip install 'cadcpp[bench]'")
    matplotlib.use("svg")
    from matplotlib import pyplot

    disks = list(dict.fromkeys(r["disk"] for r in records))
    figure, axes = pyplot.subplots(figsize=(8, 4))
    for i, name in enumerate(BARS):
        groups = [[r["s_per_token"] for r in records if r["disk"] == d and r["system"].startswith(name)] for d in disks]
        found = [(x, g) for x, g in enumerate(groups) if g]
        medians = [statistics.median(g) for _, g in found]
        low = [m - min(g) for m, (_, g) in zip(medians, found, strict=True)]
        high = [max(g) - m for m, (_, g) in zip(medians, found, strict=True)]
        places = [x + 0.16 * (i - len(BARS) / 2) for x, _ in found]
        bars = axes.bar(
            places, medians, 0.15, yerr=[low, high], label=name.strip().replace("without", "cadcpp without")
        )
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks(range(len(disks)), disks)
    axes.set_yscale("log")
    axes.set_ylabel("seconds per token")
    axes.set_title("1.19 GB verifier in 900 MiB")
    axes.legend(fontsize=7)
    figure.savefig(target)


if __name__ == "__main__":
    main()
