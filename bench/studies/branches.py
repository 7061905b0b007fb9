"""Tokens a pass of a hybrid draft that drafts branches, beside those of the same draft with one chain.

The counts are exact and do not depend on the machine's speed or load. The draft is SmolLM2 as a hybrid of the lfm2
architecture, in Q2_K. It drafts for that hybrid in Q8_0, which checks several chains a pass, and for SmolLM2 itself in
Q8_0, which checks a tree. In brackets: weights that are touched a token, as bench.studies.acceptance has them.
"""

import argparse
from pathlib import Path

from bench.matrix import models
from bench.matrix.workloads import CASES
from bench.measure.patched import patched
from bench.program import run_program
from bench.studies.acceptance import SAMPLINGS, Result, measure, show
from cadcpp.residency import states

STATES = {"one chain": 1, "branches": states._MOST_DRAFTED}  # of the draft, at most


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.branches", description=__doc__)
    verifiers = {"hybrid": models.hybrid(), "dense": models.draft("Q8_0")}
    parser.add_argument("--verifier", nargs="+", choices=verifiers, default=list(verifiers))
    parser.add_argument("--rows", nargs="+", type=int, default=[24], help="tree sizes")
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--sampling", nargs="+", choices=SAMPLINGS, default=["greedy", "T 0.8, coupled"])
    parser.add_argument("--case", nargs="+", choices=CASES, default=["chat", "story", "code", "translation"])
    options = parser.parse_args()
    models.make(models.hybrid_draft())
    for name in options.verifier:
        models.make(verifiers[name])
        for rows in options.rows:
            for sampling in options.sampling:
                print(f"\n{name} verifier, {rows} rows, {sampling}")
                show(compare(verifiers[name], models.hybrid_draft(), rows, options.tokens, sampling, options.case))


def compare(
    verifier: Path, draft: Path, rows: int, n: int, sampling: str, cases: list[str]
) -> dict[str, dict[str, Result]]:
    """One generation per case with each number of states."""
    found = {}
    for name, most in STATES.items():
        with patched(states, {"_MOST_DRAFTED": most}):
            found[name] = measure(verifier, draft, rows, n, sampling=sampling, cases=cases, mode="draft")
    return found


if __name__ == "__main__":
    run_program(main)
