"""Where the time of a round goes: native decodes, native sampling, KV verbs, and Python (numpy included) between them.

In RAM with the demo pair. Medians over rounds, the first few left out.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.matrix.workloads import CASES
from bench.measure import record
from bench.measure.patched import patched
from bench.program import run_program
from cadcpp.chat.conversation import Conversation
from cadcpp.chat.template import Template
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.native.lib import api
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import TreeLimits

GREEDY = SamplingConfig(temperature=0.0)
KINDS = {
    "native decode": ("llama_decode",),
    "native sampling": ("llama_sampler_sample", "llama_sampler_accept"),
    "KV verbs": ("llama_memory_seq_cp", "llama_memory_seq_rm"),
}
N_WARM = 2  # rounds left out: the first one reads the prompt

Round = dict[str, float]  # seconds by kind


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.round_profile", description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--verifier", type=Path, default=record.demo_verifier())
    parser.add_argument("--draft", type=Path, default=record.demo_draft())
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--json", action="store_true", help="print one object with medians: seconds and shares")
    options = parser.parse_args()
    config = SessionConfig(n_ctx=1024, tree=TreeLimits(max_size=options.rows), fallback="none")
    with Session(options.verifier, options.draft, config) as session:
        rounds = measure(session, options.rounds)
    if options.json:
        print(json.dumps(dict(zip(("profile_s", "profile_share"), medians(rounds), strict=True))))
    else:
        show(rounds, options)


def measure(session: Session, n: int) -> list[Round]:
    """Seconds by kind of ``n`` rounds or a few more, over as many cases as it takes."""
    rounds: list[Round] = []
    for question in CASES.values():
        rounds += profile(session, Conversation(Template(session.model)).ask(question))[N_WARM:]
        if len(rounds) >= n:
            break
    return rounds


def profile(session: Session, prompt: list[int]) -> list[Round]:
    rounds: list[Round] = []
    with timed() as spent:
        stream = session.stream(prompt, GREEDY, 100)
        start = time.perf_counter()
        for _ in stream:
            whole = time.perf_counter() - start
            rounds.append({**spent, "Python": whole - sum(spent.values()), "round": whole})
            spent.clear()
            start = time.perf_counter()
    return rounds


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Inside, the yielded dictionary collects the seconds spent in llama.cpp, by kind."""
    spent: dict[str, float] = defaultdict(float)
    kinds = {name: kind for kind, names in KINDS.items() for name in names}
    with patched(api, {name: _timing(getattr(api, name), kind, spent) for name, kind in kinds.items()}):
        yield spent


def _timing(function: Callable[..., Any], kind: str, spent: dict[str, float]) -> Callable[..., Any]:
    """The same function, whose time is added to its kind's."""

    def call(*args: Any) -> Any:
        start = time.perf_counter()
        result = function(*args)
        spent[kind] += time.perf_counter() - start
        return result

    return call


def medians(rounds: list[Round]) -> tuple[Round, Round]:
    """By kind: seconds, and the share of the round."""
    kinds = [*KINDS, "Python", "round"]
    seconds = {kind: statistics.median(r.get(kind, 0.0) for r in rounds) for kind in kinds}
    return seconds, {kind: statistics.median(r.get(kind, 0.0) / r["round"] for r in rounds) for kind in kinds}


def show(rounds: list[Round], options: argparse.Namespace) -> None:
    seconds, share = medians(rounds)
    print(f"{'median of ' + str(len(rounds)) + ' rounds':<22}{'ms':>10}{'share':>9}")
    for kind in seconds:
        print(f"{kind:<22}{1000 * seconds[kind]:>10.1f}{100 * share[kind]:>8.1f}%")
    settings = {"verifier": options.verifier.name, "draft": options.draft.name, "rows": options.rows}
    record.append("profile", {**settings, "rounds": len(rounds), "seconds": seconds, "share": share})


if __name__ == "__main__":
    run_program(main)
