"""Random requests to one process for a long time: whether a text ever differs, and whether anything grows.

    python -m bench.studies.soak --minutes 60 --seed 1

Behind the wall (as root) sessions in changing modes answer requests of all sizes, some of which are ended in the middle
of a pass. A sample is written again by plain decoding. bench/results/soak.jsonl has a line for every request. The exit
code is 1 if a text differs, or if memory, open handles or threads grow; a request that hangs is ended with a traceback.
"""

import argparse
import ctypes
import faulthandler
import gc
import json
import random
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import psutil

from bench.matrix.workloads import CASES, COPIES, in_template
from bench.measure import record, run_limited
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import TreeLimits

ROOM = "900MiB"
MODES = ("auto", "draft", "staged", "ngram")
_CTX = 1024
_COMPARED = 24  # tokens of a reply that are written again at most
_HANGS_S = 600
_WARM = 0.25  # share of the sessions after which nothing may grow
_SETTLED = 20  # sessions after which the holes between Python's objects should be as many as they will be
_MIB = 1 << 20


class Cancelled(Exception):
    """Ends a request in the middle of a pass."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. It ends after so many layers, or pieces of text, if these are given."""

    prompt: list[int]
    sampling: SamplingConfig
    n: int
    layers: int | None = None
    chunks: int | None = None


@dataclass(slots=True)
class Reply:
    """What came of a request; ``wait_s`` is the longest time without a piece of text."""

    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
    seconds: float = 0.0
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Holding:
    """What the process holds.

    ``own`` are bytes in memory that no file backs; allocators keep some that nobody uses. ``used`` are those in use, as
    the C library counts them (0 where it does not), and ``objects`` the blocks that Python uses beside them.
    """

    at_s: float
    rss: int
    own: int
    used: int
    objects: int
    handles: int
    threads: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        sys.exit(run_limited.run(ROOM, [sys.executable, "-m", "bench.studies.soak", "--inside", *sys.argv[1:]]))
    soak = Soak(random.Random(options.seed), 60 * options.minutes)
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

    def __init__(self, rng: random.Random, seconds: float) -> None:
        self.rng, self._until = rng, seconds
        self.sample: list[tuple[str, Request, Reply]] = []
        self._start = time.perf_counter()
        self._process = psutil.Process()
        self._text: list[int] = []  # the last request's, with its reply
        self._held: list[Holding] = []  # between sessions
        self._replies: list[Reply] = []
        self._compared, self._different = 0, 0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    @property
    def over(self) -> bool:
        return self.seconds > self._until

    def session(self, mode: str) -> None:
        """Some requests in one mode."""
        with Session(record.demo_verifier(), record.demo_draft(), self._config(mode)) as session:
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
        with Session(record.demo_verifier(), None, self._config("off")) as session:
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
        grown = BestFirstGrowth.of(self._held)
        return {
            "minutes": round(self.seconds / 60, 1),
            "sessions": len(self._held),
            "requests": len(self._replies),
            "cancelled": sum(reply.cancelled for reply in self._replies),
            "tokens": sum(len(reply.tokens) for reply in self._replies),
            "compared": self._compared,
            "different": self._different,
            "longest_wait_s": round(max((reply.wait_s for reply in self._replies), default=0.0), 2),
            **asdict(grown),
            "faults": [*(["a text differs"] if self._different else []), *grown.faults],
        }

    def _config(self, mode: str) -> SessionConfig:
        rng = self.rng
        return SessionConfig(
            n_ctx=_CTX,
            ram=rng.choice((800, 860, 900)) << 20,
            speculative=mode,  # type: ignore[arg-type]
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
        record.append("soak", {**what, **figures, **asdict(self._holding())})

    def _note_end(self) -> None:
        gc.collect()
        self._held.append(self._holding())
        record.append("soak", {"between": asdict(self._held[-1])})

    def _holding(self) -> Holding:
        memory = self._process.memory_info()
        own = memory.rss - getattr(memory, "shared", 0)
        counts = self._process.num_fds(), self._process.num_threads()
        return Holding(self.seconds, memory.rss, own, used_bytes(), sys.getallocatedblocks(), *counts)


class _MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2: ten counts, of which the fifth are mapped bytes and the eighth others in use."""

    _fields_ = [("counts", ctypes.c_size_t * 10)]


def used_bytes() -> int:
    """Bytes that were allocated and not freed, in any thread; 0 without glibc."""
    info = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if info is None:
        return 0
    info.restype = _MallInfo
    counts = info().counts
    return int(counts[4] + counts[7])


def write(session: Session, request: Request) -> Reply:
    """One reply."""
    reply, start, left = Reply(), time.perf_counter(), request.layers
    last = start

    def count(_done: int, _of: int) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                raise Cancelled

    faulthandler.dump_traceback_later(_HANGS_S, exit=True)
    try:
        with closing(session.stream(request.prompt, request.sampling, request.n, progress=count)) as chunks:
            for i, chunk in enumerate(chunks, 1):
                now = time.perf_counter()
                reply.wait_s, last = max(reply.wait_s, now - last), now
                reply.tokens += chunk.tokens
                if i == request.chunks and not chunk.finish:
                    reply.cancelled = True
                    break
    except Cancelled:
        reply.cancelled = True
    faulthandler.cancel_dump_traceback_later()
    reply.seconds = time.perf_counter() - start
    reply.wait_s = max(reply.wait_s, time.perf_counter() - last)
    return reply


@dataclass(frozen=True, slots=True, kw_only=True)
class BestFirstGrowth:
    """How what the process holds between sessions changes after the first quarter of them."""

    own_mb: tuple[float, float] = (0.0, 0.0)  # first and last
    used_mb: tuple[float, float] = (0.0, 0.0)
    objects: tuple[int, int] = (0, 0)
    mb_per_hour: float = 0.0  # of own memory, by a straight line
    mb_per_hour_error: float = 0.0  # one standard error
    handles: tuple[int, int] = (0, 0)
    threads: tuple[int, int] = (0, 0)
    faults: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, held: Sequence[Holding]) -> "BestFirstGrowth":
        """From what was held after each session; fewer than six of them tell of no growth."""
        settled, held = held[_SETTLED:], held[int(_WARM * len(held)) :]
        if not held:
            return cls()
        slope, error = _line(held, "own")
        wrong = {
            "memory in use grows": _grows(held, "used", _MIB),
            "objects grow": _grows(held, "objects", 10_000),
            "memory grows": _grows(settled if held[0].used else held, "own", 4 * _MIB),
            "handles grow": _rises([each.handles for each in held]),
            "threads grow": _rises([each.threads for each in held]),
        }
        return cls(
            own_mb=(round(held[0].own / 1e6, 1), round(held[-1].own / 1e6, 1)),
            used_mb=(round(held[0].used / 1e6, 1), round(held[-1].used / 1e6, 1)),
            objects=(held[0].objects, held[-1].objects),
            mb_per_hour=round(slope * 3600 / 1e6, 2),
            mb_per_hour_error=round(error * 3600 / 1e6, 2),
            handles=(held[0].handles, held[-1].handles),
            threads=(held[0].threads, held[-1].threads),
            faults=[what for what, true in wrong.items() if true],
        )


def _grows(held: Sequence[Holding], what: str, least: float) -> bool:
    """Whether a straight line says so, beyond doubt, and by more than ``least`` in all."""
    slope, error = _line(held, what)
    return slope > 3 * error and slope * (held[-1].at_s - held[0].at_s) > least


def _line(held: Sequence[Holding], what: str) -> tuple[float, float]:
    """Slope of the straight line through what was held at each time, per second, and its standard error."""
    if len(held) < 6:  # which tell of no growth
        return 0.0, 0.0
    times = np.array([each.at_s for each in held])
    x, y = times - times.mean(), np.array([getattr(each, what) for each in held], float)
    slope, base = np.polyfit(x, y, 1)
    rest = y - base - slope * x
    return float(slope), float(np.sqrt(np.sum(rest**2) / (len(x) - 2) / np.sum(x**2)))


def _rises(counts: Sequence[int]) -> bool:
    """Whether a count is never again as low as it once was at most; some come and go."""
    third = len(counts) // 3
    return third > 1 and min(counts[-third:]) > max(counts[:third])


if __name__ == "__main__":
    main()
