"""Which experts a mixture's tokens are routed to, and what caches of several kinds would have read for them.

    python -m bench.studies.expert_routes [--model FILE] [--tokens 96] [--share 25 50 75]

The texts are written one after the other in half of the memory that the model needs, and greedily; which experts are in
memory changes none of them. Caches begin empty, and are judged by the second half of the texts.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.matrix.cell import prompt
from bench.matrix.workloads import CASES
from bench.measure import record
from bench.program import run_program
from bench.studies import expert_replay
from bench.studies.expert_replay import Routing
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import Header, read_header
from cadcpp.models.demo_mixture import demo_mixture
from cadcpp.models.routers import describe
from cadcpp.modes import Pin
from cadcpp.residency.layout import lay_out
from cadcpp.residency.memory_plan import Plan, make_plan
from cadcpp.residency.pager import Pager
from cadcpp.residency.streaming_pager import StreamingPager
from cadcpp.runtime.assembly import Parts
from cadcpp.runtime.session import Session
from cadcpp.system.mapping import Mapping
from cadcpp.telemetry.trace import Trace

N_CTX = 1024
_FADES = (1.0, 0.995, 0.99, 0.98, 0.95, 0.9)


def budget(header: Header, share: float, n_ctx: int = N_CTX) -> int:
    """Bytes for everything where a ``share`` of the experts is kept."""
    whole = make_plan(header, None, ram=1 << 50, n_ctx=n_ctx, rows=64)
    return whole.fixed + whole.layout.pinned_bytes + int(share * whole.layout.expert_bytes)


def routing(model: Path, prompts: Sequence[str], n: int, share: float = 0.5) -> list[Routing]:
    """What ``n`` tokens that the model writes after each prompt are routed to, [n - 1, n_layers, n_used]."""
    chosen: list[list[NDArray[np.int32]]] = []  # of each text, layer after layer

    class Recorder(StreamingPager):
        def experts_chosen(self, layer: int, rows: NDArray[np.int32], n_own: int) -> None:
            chosen[-1].append(rows[:n_own].copy())
            super().experts_chosen(layer, rows, n_own)

    def start(mapping: Mapping, plan: Plan, trace: Trace | None, *, ahead: bool, pin: Pin) -> Pager:
        return Recorder(mapping, plan.layout, plan.window, plan.experts, trace, ahead=ahead, pin=pin)

    header = read_header(model)
    config = SessionConfig(n_ctx=N_CTX, ram=budget(header, share), speculative="off")
    with Session(model, None, config, parts=Parts(pager=start)) as session:
        for text in prompts:
            chosen.append([])
            for _ in session.stream(session.model.tokenize(text), SamplingConfig(temperature=0.0), n):
                pass
    n_layers = len(lay_out(header, 0).experts)
    return [_of_single_rows(text, n_layers) for text in chosen]


def _of_single_rows(chosen: list[NDArray[np.int32]], n_layers: int) -> Routing:
    """What passes over one token chose, [n, n_layers, n_used]."""
    passes = (chosen[i : i + n_layers] for i in range(0, len(chosen), n_layers))
    return np.stack([np.stack([rows[0] for rows in layers]) for layers in passes if len(layers[0]) == 1])


def figures(texts: Sequence[Routing], n_experts: int) -> dict[str, float]:
    """What choices look like in a text, over all layers and in the first."""
    each = [[describe(text[:, layer], n_experts) for text in texts] for layer in range(texts[0].shape[1])]
    names = each[0][0]
    mean = {name: float(np.mean([[one[name] for one in layer] for layer in each])) for name in names}
    first = {f"{name}, first layer": float(np.mean([one[name] for one in each[0]])) for name in names}
    return mean | first


def compare(found: Routing, n_experts: int, share: float) -> dict[str, float]:
    """Experts read a token by each kind of cache, which holds a ``share`` of them."""
    room, half = int(share * found.shape[1] * n_experts), len(found) // 2
    caches: dict[str, expert_replay.Replay] = {
        "optimum": expert_replay.optimum,
        "own": expert_replay.own,
        "latest": expert_replay.latest,
        **{f"most frequent, {fade}": partial(expert_replay.frequent, fade=fade) for fade in _FADES},
    }
    return {name: float(cache(found, n_experts, room)[half:].mean()) for name, cache in caches.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.expert_routes", description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--share", type=int, nargs="+", default=[25, 50, 75])
    parser.add_argument("--case", nargs="+", default=sorted(CASES), choices=sorted(CASES))
    options = parser.parse_args()
    model = options.model or demo_mixture(record.models())
    n_experts = read_header(model).number("expert_count")
    texts = routing(model, [prompt(case) for case in options.case], options.tokens)
    print(", ".join(f"{name} {value:.3g}" for name, value in figures(texts, n_experts).items()))
    for share in options.share:
        reads = compare(np.concatenate(texts), n_experts, share / 100)
        record.append("expert-routes", {"model": model.name, "cases": options.case, "share": share, "reads": reads})
        print(f"{share:>4}%: " + ", ".join(f"{name} {value:.2f}" for name, value in reads.items()))


if __name__ == "__main__":
    run_program(main)
