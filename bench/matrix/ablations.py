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

import numpy as np
from numpy.typing import NDArray

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.draft.base import Drafter
from cadcpp.draft.best_first import BestFirstGrowth
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.gguf.header import Header
from cadcpp.policy.base import Policy
from cadcpp.residency.footprint import window_bytes
from cadcpp.residency.layout import lay_out
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.pager import Pager
from cadcpp.residency.tree_buffers import TreeBuffers
from cadcpp.runtime.generation_record import GenerationRecord
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import TreeConfig

SAMPLINGS = {
    "greedy": SamplingConfig(temperature=0.0),
    "top-k": SamplingConfig(temperature=1.0, top_k=50, top_p=1.0, min_p=0.0, seed=1),
}


class Unpinned(Session):
    """The memory that pinning would take goes into the window."""

    def _plan(self, verifier: Header, draft: Header | None) -> tuple[Plan, TreeBuffers]:
        plan, tree_buffers = super()._plan(verifier, draft)
        layout = lay_out(verifier, 0)
        room = plan.layout.pinned_bytes + plan.window - layout.pinned_bytes - tree_buffers.take(tree_buffers.most)
        window = max(room, window_bytes(verifier, 0))
        return replace(plan, layout=layout, window=window), TreeBuffers.fixed(tree_buffers.most)


class Unstreamed(Session):
    """The memory of the window is left to the kernel's cache."""

    def _start_pager(self) -> Pager:
        self.plan = replace(self.plan, layout=replace(self.plan.layout, streamed=()))
        return super()._start_pager()


class Unlocked(Session):
    """What is pinned stays because nothing presses it out."""

    def _start_pager(self) -> Pager:
        if self.model.mapping is not None:
            self.model.mapping.lock = lambda *_: False  # type: ignore[method-assign]
        return super()._start_pager()


class Chain(BestFirstGrowth):
    """Of every node the likeliest next token alone."""

    def _likely(self, logp: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        tokens, found = super()._likely(logp)
        best = np.argsort(-found, kind="stable")[:1]
        return tokens[best], found[best]


class ChainDrafter(ModelDrafter):
    growth = Chain


class Branchless(Session):
    """Drafts chains, and all of each."""

    def _drafter(self, path: str | Path | None, policy: Policy | None) -> Drafter:
        drafter = super()._drafter(path, policy)
        assert isinstance(drafter, ModelDrafter)
        return ChainDrafter(drafter.context, self.model.end_tokens())


KINDS = {
    "pinning": Unpinned,
    "stream": Unstreamed,
    "tree": Session,
    "lock": Unlocked,
    "branches": Branchless,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.matrix.ablations", description=__doc__)
    parser.add_argument("--without", choices=KINDS, required=True)
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
    with KINDS[options.without](options.m, draft, config_of(options)) as session:
        prompt = session.model.tokenize(options.p)
        recorder = GenerationRecord(len(prompt))
        for chunk in session.stream(prompt, SAMPLINGS[options.sampling], options.n, stats=recorder.stats):
            recorder.add(chunk)
    print(json.dumps(recorder.to_dict()))


def config_of(options: argparse.Namespace) -> SessionConfig:
    ram = options.ram << 20 if options.ram else None
    config = SessionConfig(n_ctx=options.ctx, ram=ram, tree=TreeConfig(max_size=options.rows))
    if options.without == "tree":
        return replace(config, tree=TreeConfig(max_size=1))
    if options.without == "branches":
        tree = replace(config.tree, cutoff=0.0, reach=1.0)
        return replace(config, tree=tree, speculative="draft", fallback="none")
    return config


if __name__ == "__main__":
    main()
