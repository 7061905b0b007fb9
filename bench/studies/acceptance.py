"""Tokens a pass: how many tokens a pass of the verifier yields, by kind of text and way to draw; in the chat template.

The counts are exact and do not depend on the machine's speed or load. In brackets: what all decodes touch of weights a
token, both models', in units of the verifier's. A small model falls into loops, which every draft guesses: "fresh" is
the share of 8-token runs in the greedy text that have not been there before, and says how much of a result is due to
that.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import get_args

from bench.matrix import models
from bench.matrix.workloads import CASES
from bench.measure import record
from bench.program import run_program
from cadcpp.chat.conversation import Conversation
from cadcpp.chat.template import Template
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.modes import Speculative
from cadcpp.runtime.session import Session
from cadcpp.telemetry.stats import Stats
from cadcpp.tree.limits import TreeLimits

GREEDY = SamplingConfig(temperature=0.0)
DRAWN = {
    "T 0.8": SamplingConfig(),
    "T 1, k 50": SamplingConfig(temperature=1.0, top_k=50, top_p=1.0, min_p=0.0),
}
SAMPLINGS = {"greedy": GREEDY} | {
    f"{name}, {sampler}": replace(drawn, sampler=sampler)
    for name, drawn in DRAWN.items()
    for sampler in ("llama", "coupled")
}


@dataclass(frozen=True, slots=True)
class Result:
    """One generation."""

    stats: Stats
    fresh: float  # share of 8-token runs that are new
    touched: float  # weights a token, in units of the verifier's


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.acceptance", description=__doc__)
    parser.add_argument("--rows", default="64", help="tree sizes, with commas between them")
    verifier = parser.add_mutually_exclusive_group()
    verifier.add_argument("--verifier", type=Path, default=record.demo_verifier())
    verifier.add_argument("--type", choices=models.TYPES, help="a widened SmolLM2 of one shape in any of these types")
    parser.add_argument("--draft", type=Path, default=record.demo_draft())
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--sampling", nargs="+", choices=SAMPLINGS, default=list(SAMPLINGS))
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seed", nargs="+", type=int, default=[1], help="of what is drawn; a line for each")
    parser.add_argument("--speculative", choices=get_args(Speculative), default="auto")
    options = parser.parse_args()
    if options.type:
        options.verifier = models.verifier_of_type(options.type)
        models.make(options.verifier)
    sizes = [int(rows) for rows in options.rows.split(",")]
    table = {
        f"{rows}: {name}, {seed}": measure(
            *(options.verifier, options.draft, rows, options.tokens),
            sampling=name,
            seed=seed,
            cases=options.case,
            mode=options.speculative,
        )
        for rows in sizes
        for name in options.sampling
        for seed in (options.seed[:1] if name == "greedy" else options.seed)
    }
    show(table)


def measure(
    verifier: Path,
    draft: Path,
    rows: int,
    n: int,
    *,
    sampling: str = "greedy",
    seed: int = 1,
    cases: Iterable[str] = CASES,
    mode: Speculative = "auto",
) -> dict[str, Result]:
    """One generation per case."""
    config = SessionConfig(n_ctx=1024, tree=TreeLimits(max_size=rows), fallback="none", speculative=mode)
    settings = {
        "verifier": verifier.name,
        "draft": draft.name,
        "rows": rows,
        "n": n,
        "sampling": sampling,
        "seed": seed,
    }
    share, found = read_header(draft).n_bytes / read_header(verifier).n_bytes, {}
    with Session(verifier, draft, config) as session:
        for name in cases:
            prompt, stats = Conversation(Template(session.model)).ask(CASES[name]), Stats()
            chunks = session.stream(prompt, replace(SAMPLINGS[sampling], seed=seed), n, stats=stats)
            tokens = [token for chunk in chunks for token in chunk.tokens]
            touched = (stats.passes + share * stats.draft_decodes) / max(len(tokens), 1)
            found[name] = Result(stats, fresh(tokens), touched)
            counts = {"emitted": stats.emitted, "fresh": found[name].fresh, "touched": touched, **stats.to_dict()}
            record.append("acceptance", {**settings, "speculative": mode, "case": name, **counts})
    return found


def fresh(tokens: list[int], length: int = 8) -> float:
    runs = [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def show(table: dict[str, dict[str, Result]]) -> None:
    """A line per way to draw, a column per case."""
    first = next(iter(table.values()))
    print(f"{'tokens a pass':<24}" + "".join(f"{name:>14}" for name in first) + f"{'mean':>14}")
    for name, found in table.items():
        figures = [(result.stats.tokens_per_pass, result.touched) for result in found.values()]
        figures.append((fmean(passes for passes, _ in figures), fmean(touched for _, touched in figures)))
        cells = (f"{passes:.2f} ({touched:.2f})" for passes, touched in figures)
        print(f"{name:<24}" + "".join(f"{cell:>14}" for cell in cells))
    print(f"{'fresh':<24}" + "".join(f"{result.fresh:>14.0%}" for result in first.values()))


if __name__ == "__main__":
    run_program(main)
