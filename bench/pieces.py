"""cadcpp with a piece taken out, to see what the piece is worth; prints what `cadcpp generate --json` prints.

--without pinning     nothing of the verifier's blocks stays, all of it is streamed
--without stream      what is pinned stays, the rest is left to page faults
--without tree        plain decoding behind the same pager
--without lock        nothing is locked in memory, as for a user without the right to
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from cadcpp.config import SamplingConfig, SessionConfig, TreeConfig
from cadcpp.layout import lay_out
from cadcpp.native.gguf import Header
from cadcpp.pager import Pager
from cadcpp.plan import Plan, window_bytes
from cadcpp.report import Recorder
from cadcpp.session import Session

GREEDY = SamplingConfig(temperature=0.0)


class Unpinned(Session):
    """The memory that pinning would take goes into the window."""

    def _plan(self, verifier: Header, draft: Header | None) -> Plan:
        plan = super()._plan(verifier, draft)
        layout = lay_out(verifier, 0)
        room = plan.layout.pinned_bytes + plan.window - layout.pinned_bytes
        return replace(plan, layout=layout, window=max(room, window_bytes(verifier, 0)))


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pieces", description=__doc__)
    parser.add_argument("--without", choices=["pinning", "stream", "tree", "lock"], required=True)
    parser.add_argument("-m", type=Path, required=True)
    parser.add_argument("-d", type=Path, required=True)
    parser.add_argument("-p", required=True)
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--ram", type=int, required=True, help="MiB")
    options = parser.parse_args()
    tree = options.without != "tree"
    config = SessionConfig(n_ctx=options.ctx, ram=options.ram << 20, tree=TreeConfig(rows=options.rows if tree else 1))
    kind = {"pinning": Unpinned, "stream": Unstreamed, "tree": Session, "lock": Unlocked}[options.without]
    with kind(options.m, options.d if tree else None, config) as session:
        prompt = session.model.tokenize(options.p)
        recorder = Recorder(len(prompt))
        for chunk in session.stream(prompt, GREEDY, options.n, stats=recorder.stats):
            recorder.add(chunk)
    print(json.dumps(recorder.to_dict()))


if __name__ == "__main__":
    main()
