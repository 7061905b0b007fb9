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
    records = [r for r in records if "error" not in r]
    if "place" in records[0]:
        draw_steps(records, target)
    else:
        draw([r for r in records if r["budget"] == 1.3], target)
    print(target)


def draw(records: list[dict[str, Any]], target: Path) -> None:
    """Seconds a token by disk and system, medians with their range, over all cases; the scale is logarithmic."""
    pyplot = _pyplot()
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


def draw_steps(records: list[dict[str, Any]], target: Path) -> None:
    """Ratios to plain llama.cpp by place and system, geometric means over cases with their range."""
    places, pyplot = list(dict.fromkeys(r["place"] for r in records)), _pyplot()
    figure, rows = pyplot.subplots(1, len(places), figsize=(4.5 * len(places), 3), squeeze=False)
    for axes, place in zip(rows[0], places, strict=True):
        here = [r for r in records if r["place"] == place]
        base = {r["case"]: r["s_per_token"] for r in here if r["system"] == PLAIN}
        names = list(dict.fromkeys(r["system"] for r in here))
        ratios = [[base[r["case"]] / r["s_per_token"] for r in here if r["system"] == name] for name in names]
        means = [statistics.geometric_mean(found) for found in ratios]
        low = [mean - min(found) for mean, found in zip(means, ratios, strict=True)]
        high = [max(found) - mean for mean, found in zip(means, ratios, strict=True)]
        axes.bar_label(axes.barh(names, means, xerr=[low, high]), fmt="%.2f", fontsize=7, padding=2)
        axes.invert_yaxis()
        axes.set_title(place, fontsize=9)
        axes.set_xlabel("x plain llama.cpp", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(target)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        sys.exit("the chart needs matplotlib: pip install 'cadcpp[bench]'")
    matplotlib.use("svg")
    from matplotlib import pyplot

    return pyplot


if __name__ == "__main__":
    main()
