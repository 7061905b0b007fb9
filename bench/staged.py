"""The tables of Staged Speculative Decoding (arXiv 2308.04623, section 4): weight traffic and speed, by workload.

    python -m bench.staged

In memory, greedy and with top-k sampling (k = 50, temperature 1): plain decoding, a draft's chain, its tree, and its
tree with n-grams drafting for the draft. Weight traffic is counted: the bytes of both models' weights that all decodes
touch, for each token, relative to plain decoding; trees have a fixed size for it, as in the paper. Speed is measured
against plain decoding in the same run, with trees as large as the cost model has them; llama.cpp's prompt lookup
beside it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import record
from bench.cases import COPIES, in_template
from cadcpp.config import SamplingConfig, SessionConfig, TreeConfig
from cadcpp.drafter import ModelDrafter
from cadcpp.growth import Growth
from cadcpp.session import Session
from cadcpp.stats import Stats

WORKLOADS = ("code", "story", "chat", *COPIES)
SAMPLINGS = {
    "greedy": SamplingConfig(temperature=0.0),
    "top-k 50": SamplingConfig(temperature=1.0, top_k=50, top_p=1.0, min_p=0.0, seed=1),
}
LOOKUP = "llama.cpp's lookup"
Cell = tuple[str, str, str]  # sampling, workload, system


class Chain(Growth):
    """Of every node the likeliest next token alone: plain speculative decoding."""

    def _likely(self, logp: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        tokens, found = super()._likely(logp)
        best = np.argsort(-found, kind="stable")[:1]
        return tokens[best], found[best]


class ChainDrafter(ModelDrafter):
    growth = Chain


@dataclass(frozen=True, slots=True)
class System:
    """One way to decode, with what its numbers are for."""

    session: Session
    draft_bytes: int

    def run(self, prompt: str, sampling: SamplingConfig, n: int) -> dict[str, Any]:
        """One text: seconds a token after the first round, and weights touched a token."""
        stats, tokens, times = Stats(), list[int](), list[tuple[float, int]]()
        ids = self.session.model.tokenize(prompt)
        for chunk in self.session.stream(ids, sampling, n, stats=stats):
            tokens += chunk.tokens
            times.append((time.perf_counter(), len(tokens)))
        (start, first), (stop, last) = times[0], times[-1]
        touched = stats.passes * self.session.model.header.n_bytes + stats.draft_decodes * self.draft_bytes
        return {
            "s_per_token": (stop - start) / max(last - first, 1),
            "bytes_per_token": touched / max(stats.emitted, 1),
            "draft_decodes_per_token": stats.draft_decodes / max(stats.emitted, 1),
            "pass": stats.tokens_per_pass,
            "tokens": tokens,
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.staged", description=__doc__)
    parser.add_argument("--draft", type=Path, default=record.demo_draft())
    parser.add_argument("--ngram", type=Path, help="an n-gram model besides; `make ngram` makes the demo's")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rows", type=int, default=64, help="of a tree, for the weight traffic")
    parser.add_argument("--only", choices=["traffic", "speed"])
    options = parser.parse_args()
    if options.only != "speed":
        found = measure("none", options)
        show("weights touched a token, relative to plain decoding", found, "bytes_per_token", inverse=False)
        show("draft decodes a token", found, "draft_decodes_per_token")
    if options.only != "traffic":
        show("speed, x plain decoding", measure("cost", options), "s_per_token", inverse=True)


def measure(fallback: str, options: argparse.Namespace) -> dict[Cell, list[dict[str, Any]]]:
    """All systems in turn on each text."""
    found = dict[Cell, list[dict[str, Any]]]()
    with ExitStack() as stack:
        running = dict(systems(fallback, options, stack))
        for _ in range(options.runs):
            for sampling in SAMPLINGS:
                for workload in options.workloads.split(","):
                    for name, result in results(running, fallback, sampling, workload, options):
                        cell = {"sampling": sampling, "case": workload, "system": name, "fallback": fallback}
                        record.append("staged", {**cell, "draft": options.draft.name, **result})
                        found.setdefault((sampling, workload, name), []).append(result)
                    check_texts(found, sampling, workload)
    return found


def results(
    running: dict[str, System], fallback: str, sampling: str, workload: str, options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    prompt = in_template(workload)
    for name, system in running.items():
        yield name, system.run(prompt, SAMPLINGS[sampling], options.tokens)
    if fallback == "cost" and sampling == "greedy":
        yield LOOKUP, lookup(prompt, options.tokens)


def systems(fallback: str, options: argparse.Namespace, stack: ExitStack) -> Iterator[tuple[str, System]]:
    rows, draft = options.rows, options.draft

    def system(mode: str, rows: int, fallback: str) -> System:
        ngram = options.ngram if mode in ("staged", "auto", "ngram") else None
        config = SessionConfig(n_ctx=2048, tree=TreeConfig(rows=rows), fallback=fallback, speculative=mode, ngram=ngram)
        session = stack.enter_context(Session(record.demo_verifier(), draft, config))
        return System(session, draft.stat().st_size)

    yield "plain", system("off", 1, "none")
    yield "chain", chained(system("draft", 9 if fallback == "none" else 4, "none"))
    yield "tree", system("draft", rows, fallback)
    yield "tree + stage 2", system("staged", rows, fallback)
    if fallback == "cost":
        yield "n-grams alone", system("ngram", rows, fallback)
        yield "auto", system("auto", rows, fallback)


def chained(system: System) -> System:
    """The same with chains for trees."""
    engine = system.session.engine
    if not isinstance(engine.drafter, ModelDrafter):
        raise TypeError(f"a chain needs a draft model, not {type(engine.drafter).__name__}")
    engine.drafter = ChainDrafter(engine.drafter.context, system.session.model.end_tokens())
    engine.tree = replace(engine.tree, cutoff=0.0, reach=1.0)
    return system


def lookup(prompt: str, n: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.lookup", "-m", str(record.demo_verifier()), "-p", prompt, "-n", str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    output = json.loads(done.stdout)
    return {"s_per_token": output["seconds_per_token"], "tokens": output["tokens"]}


def check_texts(found: dict[Cell, list[dict[str, Any]]], sampling: str, workload: str) -> None:
    """Every system of ours must have written the same."""
    texts = {name: runs[-1]["tokens"] for (s, w, name), runs in found.items() if (s, w) == (sampling, workload)}
    for name, tokens in texts.items():
        if tokens != texts["plain"] and name != LOOKUP:
            print(f"{sampling}, {workload}: the text of {name} differs from that of plain decoding")


def show(title: str, found: dict[Cell, list[dict[str, Any]]], key: str, inverse: bool | None = None) -> None:
    """A row per sampling and system, a column per workload: ratios to plain, or if ``inverse`` is None values."""
    workloads = list(dict.fromkeys(w for _, w, _ in found))
    print(f"\n{title}\n{'':<32}" + "".join(f"{w:>10}" for w in workloads))
    for sampling, name in dict.fromkeys((s, n) for s, _, n in found):
        cells = []
        for workload in workloads:
            runs = found.get((sampling, workload, name), [])
            base = statistics.median(r[key] for r in found[sampling, workload, "plain"] if key in r)
            value = statistics.median(r[key] for r in runs)
            cells.append(value if inverse is None else base / value if inverse else value / base)
        print(f"{sampling + ', ' + name:<32}" + "".join(f"{cell:>10.2f}" for cell in cells))


if __name__ == "__main__":
    main()
