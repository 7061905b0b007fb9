"""Tokens a pass: how many tokens one pass of the verifier yields, per kind of text. Greedy, in the chat template.

The counts are exact and do not depend on the machine's speed or load.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from bench import record
from bench.cases import CASES
from cadcpp.chat import Conversation
from cadcpp.config import SamplingConfig, SessionConfig, TreeConfig
from cadcpp.native.template import Template
from cadcpp.session import Session
from cadcpp.stats import Stats

GREEDY = SamplingConfig(temperature=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.acceptance", description=__doc__)
    parser.add_argument("--rows", default="64,192", help="tree sizes, with commas between them")
    parser.add_argument("--verifier", type=Path, default=record.demo_verifier())
    parser.add_argument("--draft", type=Path, default=record.demo_draft())
    parser.add_argument("--tokens", type=int, default=200)
    options = parser.parse_args()
    sizes = [int(rows) for rows in options.rows.split(",")]
    table = {rows: measure(options.verifier, options.draft, rows, options.tokens) for rows in sizes}
    show(table)


def measure(verifier: Path, draft: Path, rows: int, n: int) -> dict[str, Stats]:
    """Counts of one generation per case."""
    config, found = SessionConfig(n_ctx=1024, tree=TreeConfig(rows=rows), fallback="none"), {}
    with Session(verifier, draft, config) as session:
        for name, question in CASES.items():
            prompt, found[name] = Conversation(Template(session.model)).ask(question), Stats()
            for _ in session.stream(prompt, GREEDY, n, stats=found[name]):
                pass
            settings = {"verifier": verifier.name, "draft": draft.name, "case": name, "n": n, **asdict(config)}
            record.append("acceptance", {**settings, "emitted": found[name].emitted, **found[name].to_dict()})
    return found


def show(table: dict[int, dict[str, Stats]]) -> None:
    """Tokens a pass per case, a column per tree size; in brackets how many rows were drafted a pass."""
    print(f"{'tokens a pass':<14}" + "".join(f"{f'{rows} rows':>16}" for rows in table))
    for name in CASES:
        cells = (f"{s.tokens_per_pass:.2f} ({s.drafted / s.passes:.0f})" for s in (t[name] for t in table.values()))
        print(f"{name:<14}" + "".join(f"{cell:>16}" for cell in cells))
    means = (sum(s.tokens_per_pass for s in found.values()) / len(found) for found in table.values())
    print(f"{'mean':<14}" + "".join(f"{mean:>16.2f}" for mean in means))


if __name__ == "__main__":
    main()
