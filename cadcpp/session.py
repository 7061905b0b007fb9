"""A session: two models, their contexts, one engine, and text out of it."""

import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.drafter import Drafter, ModelDrafter, NoDrafter
from cadcpp.engine import Engine, Round
from cadcpp.errors import ConfigError
from cadcpp.native.context import Context, ContextConfig
from cadcpp.native.model import Model
from cadcpp.native.sampler import Sampler
from cadcpp.pair import check_pair
from cadcpp.stats import Stats
from cadcpp.text import TextStream
from cadcpp.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a reply, one per round; the last one has a ``finish``."""

    text: str
    tokens: list[int]
    finish: str | None = None  # "stop" or "length"
    round: Round | None = field(default=None, repr=False)


class Session:
    """Owns everything that one running pair of models needs. Use it as a context manager, or close it."""

    def __init__(
        self, verifier: str | Path, draft: str | Path | None = None, config: SessionConfig | None = None
    ) -> None:
        self.config = config or SessionConfig()
        self._stack = ExitStack()
        start = time.perf_counter()
        try:
            self.model = self._model(verifier, repack=False)
            self.engine = self._engine(self._drafter(draft))
        except BaseException:
            self.close()
            raise
        self.load_seconds = time.perf_counter() - start

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free contexts, then models. May be called twice."""
        self._stack.close()

    def stream(
        self,
        prompt: Sequence[int],
        sampling: SamplingConfig,
        n: int,
        *,
        stop: Sequence[str] = (),
        stats: Stats | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Generator[Chunk, None, None]:
        """Write up to ``n`` tokens after ``prompt``, a chunk per round; nothing of a stop string is shown."""
        stats = stats if stats is not None else Stats()
        stats.load_seconds = self.load_seconds
        text = TextStream(stop)
        with closing(Sampler(self.engine.verifier.context, sampling)) as sampler:
            sampler.observe(prompt[-sampling.repeat_last_n :] if sampling.repeat_last_n else ())
            rounds = self.engine.rounds(prompt, sampler, n, stats=stats, progress=progress)
            try:
                for result in rounds:
                    yield (chunk := self._chunk(result, text))
                    if chunk.finish:
                        return
            finally:
                rounds.close()

    def _chunk(self, result: Round, text: TextStream) -> Chunk:
        shown, tokens = "", []
        for token in result.tokens:
            shown += text.feed(self.model.piece(token))
            tokens.append(token)
            if text.stopped:
                return Chunk(shown, tokens, "stop", result)
        if result.finish:
            shown += text.finish()
        return Chunk(shown, tokens, result.finish, result)

    def _model(self, path: str | Path, *, repack: bool) -> Model:
        model = Model(path, repack=repack)
        self._stack.callback(model.close)
        return model

    def _context(self, model: Model, n_outputs: int) -> Context:
        config = self.config
        context = Context(
            model,
            ContextConfig(
                n_cells=config.n_ctx + config.tree.rows,
                n_batch=config.n_batch + config.tree.rows,
                n_ubatch=config.n_batch + config.tree.rows,
                n_outputs=n_outputs,
                n_seq=config.tree.rows,
                n_threads=config.n_threads or default_threads(),
            ),
        )
        self._stack.callback(context.close)
        return context

    def _drafter(self, draft: str | Path | None) -> Drafter:
        if draft is None:
            return NoDrafter()
        model = self._model(draft, repack=True)
        check_pair(self.model, model)
        return ModelDrafter(self._context(model, self.config.tree.width))

    def _engine(self, drafter: Drafter) -> Engine:
        config = self.config
        if config.n_ctx > self.model.n_ctx_train:
            raise ConfigError(
                f"a context of {config.n_ctx} tokens exceeds the {self.model.n_ctx_train} that "
                f"{self.model.path} was trained for: lower --ctx"
            )
        verifier = Verifier(self._context(self.model, config.tree.rows))
        return Engine(verifier, drafter, config.n_ctx, config.tree)


def default_threads() -> int:
    """Cores that this process may run on, hyper-threads not counted."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))
