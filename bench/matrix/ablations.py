"""cadcpp with a piece taken out, to see what the piece is worth; prints what `cadcpp generate --json` prints.

--without pinning     nothing of the verifier's blocks stays, all of it is streamed
--without stream      what is pinned stays, the rest is left to page faults
--without tree        plain decoding behind the same pager
--without lock        nothing is locked in memory, as for a user without the right to
--without branches    of every node the likeliest next token alone: a chain of fixed length, as in plain speculation
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from bench.program import run_program
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import Header
from cadcpp.modes import Pin
from cadcpp.residency.footprint import window_bytes
from cadcpp.residency.kernel_mode import KernelModes
from cadcpp.residency.layout import lay_out
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.pager import Pager
from cadcpp.residency.tree_buffers import TreeBuffers, plan_session
from cadcpp.runtime.assembly import Parts, stream
from cadcpp.runtime.generation_record import GenerationRecord
from cadcpp.runtime.session import Session
from cadcpp.system.mapping import Mapping
from cadcpp.telemetry.trace import Trace
from cadcpp.tree.limits import GrowthOptions, TreeLimits

SAMPLINGS = {
    "greedy": SamplingConfig(temperature=0.0),
    "top-k": SamplingConfig(temperature=1.0, top_k=50, top_p=1.0, min_p=0.0, seed=1),
}


def unpinned(
    config: SessionConfig, verifier: Header, draft: Header | None, kernels: KernelModes
) -> tuple[Plan, TreeBuffers]:
    """The memory that pinning would take goes into the window."""
    plan, buffers = plan_session(config, verifier, draft, kernels)
    layout = lay_out(verifier, 0)
    room = plan.layout.pinned_bytes + plan.window - layout.pinned_bytes - buffers.bytes_for(buffers.most)
    window = max(room, window_bytes(verifier, 0))
    return replace(plan, layout=layout, window=window), TreeBuffers.fixed(buffers.most)


def unstreamed(mapping: Mapping, plan: Plan, trace: Trace | None, *, ahead: bool, pin: Pin) -> Pager:
    """The memory of the window is left to the kernel's cache."""
    return stream(mapping, replace(plan, layout=replace(plan.layout, streamed=())), trace, ahead=ahead, pin=pin)


def unlocked(mapping: Mapping, plan: Plan, trace: Trace | None, *, ahead: bool, pin: Pin) -> Pager:
    """What is pinned stays because nothing presses it out."""
    return stream(mapping, plan, trace, ahead=ahead, pin="off")


PARTS = {
    "pinning": Parts(plan=unpinned),
    "stream": Parts(pager=unstreamed),
    "tree": Parts(),
    "lock": Parts(pager=unlocked),
    "branches": Parts(growth=GrowthOptions(n_children=1, cutoff=0.0, reach=1.0)),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.matrix.ablations", description=__doc__)
    parser.add_argument("--without", choices=PARTS, required=True)
    parser.add_argument("-m", type=Path, required=True)
    parser.add_argument("-d", type=Path, required=True)
    parser.add_argument("-p", required=True)
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--ram", type=int, help="MiB; none is no limit")
    parser.add_argument("--sampling", choices=SAMPLINGS, default="greedy")
    options = parser.parse_args()
    draft = options.d if options.without != "tree" else None
    with Session(options.m, draft, config_of(options), parts=PARTS[options.without]) as session:
        prompt = session.model.tokenize(options.p)
        recorder = GenerationRecord(len(prompt))
        for chunk in session.stream(prompt, SAMPLINGS[options.sampling], options.n, stats=recorder.stats):
            recorder.add(chunk)
    print(json.dumps(recorder.to_dict()))


def config_of(options: argparse.Namespace) -> SessionConfig:
    ram = options.ram << 20 if options.ram else None
    config = SessionConfig(n_ctx=options.ctx, ram=ram, tree=TreeLimits(max_size=options.rows))
    if options.without == "tree":
        return replace(config, tree=TreeLimits(max_size=1))
    if options.without == "branches":
        return replace(config, speculative="draft", fallback="none")
    return config


if __name__ == "__main__":
    run_program(main)
