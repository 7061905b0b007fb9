"""One random request of the soak: what is asked for, and what came of it."""

import faulthandler
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count

from cadcpp.config import SamplingConfig
from cadcpp.runtime.session import Session
from cadcpp.telemetry.stats import Stats

_HANGS_S = 600


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
    """What came of a request, which begins when this is made; ``wait_s`` is the longest time without text."""

    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
    seconds: float = 0.0
    wait_s: float = 0.0
    read_per_token: int = 0  # bytes, after the first token; 0 where there is none
    _start: float = field(default_factory=time.perf_counter, repr=False)

    def add(self, tokens: list[int]) -> None:
        """A piece of text came."""
        self._wait()
        self.tokens += tokens

    def end(self, cancelled: bool) -> None:
        self._wait()
        self.cancelled = cancelled

    def _wait(self) -> None:
        seconds = time.perf_counter() - self._start
        self.seconds, self.wait_s = seconds, max(self.wait_s, seconds - self.seconds)


def write(session: Session, request: Request) -> Reply:
    """One reply. A request that hangs ends the process with a traceback."""
    reply = Reply()
    faulthandler.dump_traceback_later(_HANGS_S, exit=True)
    try:
        cancelled = _fill(reply, session, request)
    except Cancelled:
        cancelled = True
    finally:
        faulthandler.cancel_dump_traceback_later()
    reply.end(cancelled)
    return reply


def _fill(reply: Reply, session: Session, request: Request) -> bool:
    """Whether it was ended after so many pieces of text."""
    progress, stats = _ended_after(request.layers), Stats()
    chunks = session.stream(request.prompt, request.sampling, request.n, stats=stats, progress=progress)
    with closing(chunks):
        for i, chunk in enumerate(chunks, 1):
            reply.add(chunk.tokens)
            reply.read_per_token = (stats.read_bytes - stats.prompt_read_bytes) // max(stats.emitted - 1, 1)
            if i == request.chunks and not chunk.finish:
                return True
    return False


def _ended_after(layers: int | None) -> Callable[[int, int], None]:
    """A progress that raises Cancelled when it is told of one layer more."""
    left: Iterator[int] = count() if layers is None else iter(range(layers))

    def progress(_done: int, _of: int) -> None:
        if next(left, None) is None:
            raise Cancelled

    return progress
