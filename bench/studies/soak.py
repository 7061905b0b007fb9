"""Random requests to one process for a long time: whether a text ever differs, and whether anything grows.

    python -m bench.studies.soak --minutes 60 --seed 1 [--mixture]

With a memory limit (cgroup, as root) sessions in changing modes answer requests of all sizes. Some of them are ended in
the middle of a pass, and a sample is written again by plain decoding. bench/results/soak.jsonl has a line for every
request. The exit code is 1 if a text differs, or if memory, open handles or threads grow. A request that hangs is ended
with a traceback. With --mixture the verifier is a mixture of experts, in a quarter of its file's size.
"""

import argparse
import gc
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.matrix.cell import MIB
from bench.matrix.workloads import CASES, COPIES, in_template
from bench.measure import record, run_limited
from bench.measure.resources import ResourceGrowth, Resources
from bench.program import run_program
from bench.studies.soak_request import Reply, Request, write
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.models.demo_mixture import demo_mixture
from cadcpp.modes import Speculative
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import TreeLimits

MODES: tuple[Speculative, ...] = ("auto", "draft", "staged", "ngram")
_CTX = 1024
_COMPARED = 24  # tokens of a reply that are written again at most


@dataclass(frozen=True, slots=True)
class Subject:
    """What is soaked: a verifier, in so much memory (MiB)."""

    verifier: Path
    room: int

    def rams(self) -> tuple[int, ...]:
        """What sessions are told to take of it, in bytes."""
        return tuple(MIB * (self.room - less) for less in (100, 40, 0))


def subject(mixture: bool) -> Subject:
    """The demo's verifier, or a mixture, which is made if it is not there."""
    if not mixture:
        return Subject(record.demo_verifier(), 900)
    path = demo_mixture(record.models())
    return Subject(path, path.stat().st_size // 4 // MIB)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mixture", action="store_true", help="of a mixture of experts larger than memory, 5.8 GB")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    what = subject(options.mixture)
    if not options.inside:
        room = f"{what.room}MiB"
        sys.exit(run_limited.run(room, [sys.executable, "-m", "bench.studies.soak", "--inside", *sys.argv[1:]]))
    soak = Soak(random.Random(options.seed), 60 * options.minutes, what)
    try:
        while not soak.over:
            soak.session(soak.rng.choice(MODES))
            if len(soak.sample) > 3 or soak.over:
                soak.compare()
    except KeyboardInterrupt:
        print("ended early", file=sys.stderr)
    finally:
        summary = {"seed": options.seed, **soak.summary()}
        record.append("soak", {"summary": summary})
        print(json.dumps(summary, indent=1))
    sys.exit(any(summary["faults"]))


class Soak:
    """The requests, and what came of them; ``sample`` is to be compared."""

    def __init__(self, rng: random.Random, seconds: float, what: Subject) -> None:
        self.rng, self._until, self._what = rng, seconds, what
        self.sample: list[tuple[str, Request, Reply]] = []
        self._start = time.perf_counter()
        self._text: list[int] = []  # the last request's, with its reply
        self._held: list[Resources] = []  # between sessions
        self._replies: list[Reply] = []
        self._compared, self._different = 0, 0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    @property
    def over(self) -> bool:
        return self.seconds > self._until

    def session(self, mode: Speculative) -> None:
        """Some requests in one mode."""
        with Session(self._what.verifier, record.demo_draft(), self._config(mode)) as session:
            for _ in range(self.rng.randint(2, 10)):
                request = self._request(session)
                reply = write(session, request)
                self._text = request.prompt + reply.tokens
                self._replies.append(reply)
                self._note(mode, request, reply)
                if reply.tokens and self.rng.random() < 0.3:
                    self.sample.append((mode, request, reply))
                if self.over:
                    break
        self._note_end()

    def compare(self) -> None:
        """Write what was sampled again, plainly."""
        with Session(self._what.verifier, None, self._config("off")) as session:
            for mode, request, reply in self.sample:
                tokens = reply.tokens[:_COMPARED]
                plain = write(session, Request(request.prompt, request.sampling, len(tokens))).tokens
                self._compared += 1
                if plain != tokens:
                    self._different += 1
                    different = {"mode": mode, "request": asdict(request), "tokens": tokens, "plain": plain}
                    record.append("soak", {"different": different})
        self.sample.clear()
        self._note_end()

    def summary(self) -> dict[str, Any]:
        """All figures, and what is wrong with them."""
        grown = ResourceGrowth.of(self._held)
        return {
            "minutes": round(self.seconds / 60, 1),
            "sessions": len(self._held),
            "requests": len(self._replies),
            "cancelled": sum(reply.cancelled for reply in self._replies),
            "tokens": sum(len(reply.tokens) for reply in self._replies),
            "compared": self._compared,
            "different": self._different,
            "read_mb_per_token": self._read(),
            "longest_wait_s": round(max((reply.wait_s for reply in self._replies), default=0.0), 2),
            **asdict(grown),
            "faults": [*(["a text differs"] if self._different else []), *grown.faults],
        }

    def _read(self) -> list[float]:
        """Medians of the first half of the requests and of the second."""
        each = [reply.read_per_token / 1e6 for reply in self._replies if reply.read_per_token]
        half = len(each) // 2
        return [round(median(part), 1) for part in (each[:half], each[half:]) if part]

    def _config(self, mode: Speculative) -> SessionConfig:
        rng = self.rng
        return SessionConfig(
            n_ctx=_CTX,
            ram=rng.choice(self._what.rams()),
            speculative=mode,
            fallback=rng.choice(("cost", "cost", "llmcad", "none")),
            pipeline=rng.random() < 0.8,
            tree=TreeLimits(max_size=rng.choice((4, 16, 64))),
        )

    def _request(self, session: Session) -> Request:
        rng = self.rng
        ends = rng.choice(("by itself", "by itself", "after layers", "after chunks"))
        return Request(
            self._prompt(session),
            SamplingConfig(
                temperature=rng.choice((0.0, 0.0, 0.8, 1.3)),
                top_k=rng.choice((40, 0)),
                repeat_penalty=rng.choice((1.0, 1.0, 1.1)),
                seed=rng.randrange(2**32),
            ),
            rng.randint(1, 64),
            layers=rng.randint(0, 200) if ends == "after layers" else None,
            chunks=rng.randint(1, 8) if ends == "after chunks" else None,
        )

    def _prompt(self, session: Session) -> list[int]:
        """A new one, one that begins as the last text does, or one that goes on from there."""
        new = session.model.tokenize(in_template(self.rng.choice([*CASES, *COPIES])))
        kind = self.rng.choice(("new", "begins", "goes on"))
        if kind == "new" or not 1 < len(self._text) < _CTX // 2:
            return new
        n = len(self._text) if kind == "goes on" else self.rng.randint(1, len(self._text))
        return [*self._text[:n], *new[: self.rng.randint(1, len(new))]]

    def _note(self, mode: str, request: Request, reply: Reply) -> None:
        what = {"mode": mode, "prompt_tokens": len(request.prompt), "n": request.n, "tokens": len(reply.tokens)}
        figures = {"cancelled": reply.cancelled, "seconds": reply.seconds, "wait_s": reply.wait_s}
        figures["read_per_token"] = reply.read_per_token
        record.append("soak", {**what, **figures, **asdict(Resources.now(self.seconds))})

    def _note_end(self) -> None:
        gc.collect()
        self._held.append(Resources.now(self.seconds))
        record.append("soak", {"between": asdict(self._held[-1])})


if __name__ == "__main__":
    run_program(main)
