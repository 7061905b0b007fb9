"""A session: two models, their contexts, one engine, and text out of it."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.native.context import Stopped
from cadcpp.native.sampler import Sampler
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.streaming_pager import StreamingPager
from cadcpp.runtime.assembly import Assembly, Parts
from cadcpp.runtime.detokenizer import Detokenizer
from cadcpp.runtime.round import Round
from cadcpp.runtime.stages import Steps, finish, run
from cadcpp.system.heap import bound_heap, trim_heap
from cadcpp.telemetry.progress import Progress
from cadcpp.telemetry.stats import Stats
from cadcpp.util.lifetime import Lifetime


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a reply, one per round; the last one has a ``finish``."""

    text: str
    tokens: list[int]
    finish: str | None = None  # "stop" or "length"
    round: Round | None = field(default=None, repr=False)


class Session:
    """Owns everything that one running pair of models needs. Use it as a context manager, or close it.

    It writes one text at a time, whichever thread asks. Once it is closed, and in a forked child, any use of it is a
    ClosedError.
    """

    def __init__(
        self,
        verifier: str | Path,
        draft: str | Path | None = None,
        config: SessionConfig | None = None,
        *,
        planned: Callable[[Plan], None] | None = None,
        parts: Parts | None = None,
    ) -> None:
        """Load both models. ``planned`` is shown where the memory will go, before anything is loaded."""
        self.config = (config or SessionConfig()).resolve(draft is not None).with_threads()
        draft = draft if self.config.speculative in ("draft", "staged", "auto") else None
        self._stack, self._life = ExitStack(), Lifetime("this session")
        self._stop: Callable[[], None] = lambda: None
        bound_heap()
        start = time.perf_counter()
        try:
            made = Assembly(verifier, draft, self.config, parts or Parts(), self._stack, planned)
        except BaseException:
            self.close()
            raise
        self.plan, self.model, self.pager, self.engine = made.plan, made.model, made.pager, made.engine
        self._stop = self.engine.stop
        self.load_seconds = time.perf_counter() - start

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Raises ClosedError once it is closed, and in a forked child."""
        self._life.check()

    def close(self) -> None:
        """Free contexts, then models, when nothing computes with them any more. May be called twice.

        A text that is being written on another thread ends. In a forked child nothing is freed.
        """
        if self._life.end():
            self._stop()
        if not self._life.inherited:
            finish(self._stack.close)
            trim_heap()

    @property
    def resident_share(self) -> float | None:
        """Share of the verifier's weights that stay in memory; None where the kernel decides."""
        if not self.plan.streams:
            return 1.0
        pinned = self.pager.state().pinned_bytes
        return pinned / self.model.header.n_bytes if isinstance(self.pager, StreamingPager) else None

    def stream(
        self,
        prompt: Sequence[int],
        sampling: SamplingConfig,
        n: int,
        *,
        stop: Sequence[str] = (),
        stats: Stats | None = None,
        progress: Progress | None = None,
    ) -> Generator[Chunk, None, None]:
        """Write up to ``n`` tokens after ``prompt``, a chunk per round; nothing of a stop string is shown.

        ``progress`` is told how much of the text is evaluated, where weights are streamed after every layer; what it
        raises ends the pass. Closing the generator ends it as well, within a layer.
        """
        return run(self.steps(prompt, sampling, n, stop=stop, stats=stats, progress=progress))

    def steps(
        self,
        prompt: Sequence[int],
        sampling: SamplingConfig,
        n: int,
        *,
        stop: Sequence[str] = (),
        stats: Stats | None = None,
        progress: Progress | None = None,
    ) -> Steps[Chunk]:
        """What `stream` does, in steps, for whoever waits in another way."""
        self.check()
        accounting, text = self.engine.accounting(stats, self.load_seconds), Detokenizer(stop)
        with self._explained(), closing(Sampler(self.model.n_vocab, sampling, prompt)) as sampler:
            with closing(self.engine.steps(prompt, sampler, n, accounting=accounting, progress=progress)) as steps:
                for step in steps:
                    if isinstance(step, Future):
                        yield step
                        continue
                    yield (chunk := self._chunk(step, text))
                    if chunk.finish:
                        return

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Inside, what was stopped because the session was closed says so."""
        try:
            yield
        except Stopped:
            self.check()
            raise

    def _chunk(self, result: Round, text: Detokenizer) -> Chunk:
        shown, tokens = "", []
        for token in result.tokens:
            shown += text.feed(self.model.piece(token))
            tokens.append(token)
            if text.stopped:
                return Chunk(shown, tokens, "stop", result)
        if result.finish:
            shown += text.finish()
        return Chunk(shown, tokens, result.finish, result)
