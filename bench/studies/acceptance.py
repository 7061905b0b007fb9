"""Tokens a pass: how many tokens one pass of the verifier yields, per kind of text. Greedy, in the chat template.

The counts are exact and do not depend on the machine's speed or load. A small model falls into loops, which every
draft guesses: "fresh" is the share of 8-token runs in the text that have not been there before, and says how much of
a result is due to that.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from bench.matrix import models
from bench.matrix.workloads import CASES
from bench.measure import record
from cadcpp.chat.conversation import Conversation
from cadcpp.chat.template import Template
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.runtime.session import Session
from cadcpp.telemetry.stats import Stats
from cadcpp.tree.limits import TreeLimits

GREEDY = SamplingConfig(temperature=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.acceptance", description=__doc__)
    parser.add_argument("--rows", default="64,192", help="tree sizes, with commas between them")
    verifier = parser.add_mutually_exclusive_group()
    verifier.add_argument("--verifier", type=Path, default=record.demo_verifier())
    verifier.add_argument("--type", choices=models.TYPES, help="a widened SmolLM2 of one shape in any of these types")
    parser.add_argument("--draft", type=Path, default=record.demo_draft())
    parser.add_argument("--tokens", type=int, default=200)
    options = parser.parse_args()
    if options.type:
        options.verifier = models.verifier_of_type(options.type)
        models.make(options.verifier)
    sizes = [int(rows) for rows in options.rows.split(",")]
    table = {rows: measure(options.verifier, options.draft, rows, options.tokens) for rows in sizes}
    show(table)


@dataclass(frozen=True, slots=True)
class Result:
    """One generation."""

    stats: Stats
    fresh: float  # share of 8-token runs that are new


def measure(verifier: Path, draft: Path, rows: int, n: int) -> dict[str, Result]:
    """One generation per case."""
    config, found = SessionConfig(n_ctx=1024, tree=TreeLimits(max_size=rows), fallback="none"), {}
    with Session(verifier, draft, config) as session:
        for name, question in CASES.items():
            prompt, stats = Conversation(Template(session.model)).ask(question), Stats()
            tokens = [token for chunk in session.stream(prompt, GREEDY, n, stats=stats) for token in chunk.tokens]
            found[name] = Result(stats, fresh(tokens))
            settings = {"verifier": verifier.name, "draft": draft.name, "rows": rows, "case": name, "n": n}
            counts = {"emitted": stats.emitted, "fresh": found[name].fresh, **stats.to_dict()}
            record.append("acceptance", {**settings, **counts})
    return found


def fresh(tokens: list[int], length: int = 8) -> float:
    runs = [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def show(table: dict[int, dict[str, Result]]) -> None:
    """Tokens a pass per case, a column per tree size; in brackets how many rows were drafted a pass."""
    print(f"{'tokens a pass':<14}" + "".join(f"{f'{rows} rows':>16}" for rows in table) + f"{'fresh':>8}")
    for name in CASES:
        results = [found[name] for found in table.values()]
        cells = (f"{r.stats.tokens_per_pass:.2f} ({r.stats.drafted / r.stats.passes:.0f})" for r in results)
        print(f"{name:<14}" + "".join(f"{cell:>16}" for cell in cells) + f"{results[0].fresh:>8.0%}")
    means = (sum(r.stats.tokens_per_pass for r in found.values()) / len(found) for found in table.values())
    print(f"{'mean':<14}" + "".join(f"{mean:>16.2f}" for mean in means))


if __name__ == "__main__":
    main()
