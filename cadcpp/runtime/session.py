"""A session: two models, their contexts, one engine, and text out of it."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.draft.base import Drafter, NoDrafter
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.draft.ngram_drafter import NgramDrafter
from cadcpp.draft.staged import StagedDrafter
from cadcpp.draft.switch import Switch
from cadcpp.errors import ConfigError
from cadcpp.gguf.header import Header, read_header
from cadcpp.gguf.validate import check_generative
from cadcpp.gguf.vocabulary import check_pair, fingerprint
from cadcpp.native.context import Context, ContextConfig, Watcher
from cadcpp.native.model import Model
from cadcpp.native.sampler import Sampler
from cadcpp.ngram.file import load
from cadcpp.ngram.katz import Katz
from cadcpp.ngram.predictor import NgramPredictor
from cadcpp.policy.base import Policy
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.drafter_choice import DrafterChoice
from cadcpp.policy.llmcad import AdaptiveFallback
from cadcpp.residency.footprint import batch_rows, draft_seqs, wide_bytes
from cadcpp.residency.memory_plan import Plan, wide_rows
from cadcpp.residency.pager import NullPager, Pager, PagerState
from cadcpp.residency.streaming_pager import StreamingPager
from cadcpp.residency.tree_buffers import TreeBuffers, plan_session
from cadcpp.runtime.detokenizer import Detokenizer
from cadcpp.runtime.engine import Engine, Round
from cadcpp.runtime.stages import Steps, run
from cadcpp.system.heap import bound_heap, trim_heap
from cadcpp.telemetry.progress import Progress
from cadcpp.telemetry.stats import Stats
from cadcpp.telemetry.trace import Trace
from cadcpp.tree.prices import TEXT_ROWS
from cadcpp.verify.verifier import Verifier


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
        self,
        verifier: str | Path,
        draft: str | Path | None = None,
        config: SessionConfig | None = None,
        *,
        planned: Callable[[Plan], None] | None = None,
    ) -> None:
        """Load both models. ``planned`` is shown where the memory will go, before anything is loaded."""
        self.config = (config or SessionConfig()).resolve(draft is not None)
        draft = draft if self.config.speculative in ("draft", "staged", "auto") else None
        self._stack = ExitStack()
        bound_heap()
        start = time.perf_counter()
        try:
            self._trace = self._start_trace()
            self.plan, self.tree_buffers = self._plan(_usable(verifier), _usable(draft) if draft else None)
            if planned is not None:
                planned(self.plan)
            self.model = self._model(verifier, stub=self.plan.streams and self.config.pager)
            policy = self._policy()
            drafter = self._drafter(draft, policy)
            self.pager = self._start_pager()
            self.engine = Engine(
                self._verifier(),
                drafter,
                self.config.n_ctx,
                self.config.tree.up_to(self.tree_buffers.most),
                self.pager,
                policy,
                self._trace,
                self.tree_buffers,
                ahead=self.config.pipeline and isinstance(self.pager, StreamingPager),
            )
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

        ``progress`` is told how much of the text is evaluated, behind the wall after every layer; what it
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
        stats = stats if stats is not None else Stats()
        stats.load_seconds = self.load_seconds
        text, before = Detokenizer(stop), self.pager.state()
        with closing(Sampler(self.model.n_vocab, sampling)) as sampler:
            sampler.observe(prompt[-sampling.repeat_last_n :] if sampling.repeat_last_n else ())
            with closing(self.engine.steps(prompt, sampler, n, stats=stats, progress=progress)) as steps:
                for step in steps:
                    if isinstance(step, Future):
                        yield step
                        continue
                    self.count_paging(stats, before)
                    yield (chunk := self._chunk(step, text))
                    if chunk.finish:
                        return

    def count_paging(self, stats: Stats, before: PagerState) -> None:
        """Write into ``stats`` what the pager has done since ``before``."""
        now = self.pager.state()
        stats.pinned_bytes, stats.layers_reported = now.pinned_bytes, now.layers_reported
        stats.stall_seconds = now.stall_seconds - before.stall_seconds
        routed = (now.expert_bytes - before.expert_bytes) // max(now.passes - before.passes, 1)
        stats.streamed_bytes_per_pass = now.pass_bytes + routed

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

    def _plan(self, verifier: Header, draft: Header | None) -> tuple[Plan, TreeBuffers]:
        check_context(self.config.n_ctx, verifier)
        if draft is not None:
            check_pair(verifier, draft)
        return plan_session(self.config, verifier, draft)

    def _model(self, path: str | Path, *, draft: bool = False, stub: bool = False) -> Model:
        model = Model(path, draft=draft, stub=stub)
        self._stack.callback(model.close)
        return model

    def _context(
        self, model: Model, n_batch: int, n_outputs: int, n_seq: int, watcher: Watcher | None = None
    ) -> Context:
        config = ContextConfig(
            n_cells=self.config.n_ctx,
            n_batch=n_batch,
            n_ubatch=n_batch,
            n_outputs=n_outputs,
            n_seq=n_seq,
            n_threads=self.config.n_threads or default_threads(),
        )
        context = Context(model, config, watcher)
        self._stack.callback(context.close)
        return context

    def _drafter(self, path: str | Path | None, policy: Policy | None) -> Drafter:
        never = self.model.end_tokens()  # nothing follows an end, so none is drafted
        if self.config.speculative == "off":
            return NoDrafter()
        if path is None or self.config.speculative == "ngram":
            return NgramDrafter(NgramPredictor(self._ngram()), never)
        model, n_seq = self._model(path, draft=True), draft_seqs(self.tree_buffers.most)
        n_batch = TEXT_ROWS if self.plan.streams else self.config.n_batch
        context = self._context(model, n_batch, n_seq, n_seq)
        unknown = range(self.model.n_vocab, model.n_vocab)  # padding that the verifier does not have
        if self.config.speculative == "draft":
            return ModelDrafter(context, [*never, *unknown])
        guesser = NgramPredictor(self._ngram(), model.n_vocab)
        staged = StagedDrafter(context, [*never, *unknown], guesser)
        return Switch(policy, staged, NgramDrafter(guesser, never)) if isinstance(policy, DrafterChoice) else staged

    def _ngram(self) -> Katz | None:
        path, header = self.config.ngram, self.model.header
        return load(path, header.n_vocab, fingerprint(header)) if path else None

    def _verifier(self) -> Verifier:
        config, rows = self.config, self.tree_buffers.most
        n_batch = batch_rows(rows) if self.plan.streams else config.n_batch + rows
        watcher = self.pager if self.model.mapping is not None else None
        context = self._context(self.model, n_batch, n_batch if config.logits_all else rows, rows, watcher)
        widen = self._widen if isinstance(self.pager, StreamingPager) else None
        return Verifier(context, widen)

    @contextmanager
    def _widen(self, n_rows: int, n_cells: int, rows: int) -> Iterator[Context]:
        """A short-lived context for long prompts and a tree of ``rows``, in memory borrowed from the pager."""
        n_rows = wide_rows(self.plan, self.model.header, n_rows, n_cells)
        with self.pager.borrow(wide_bytes(self.model.header, n_rows, n_cells, rows)):
            narrow = self.engine.verifier.context.config
            config = replace(narrow, n_cells=n_cells, n_batch=n_rows, n_ubatch=n_rows, n_outputs=rows, n_seq=rows)
            with closing(Context(self.model, config, self.pager)) as context:
                yield context

    def _policy(self) -> Policy | None:
        if self.config.fallback == "llmcad":
            return AdaptiveFallback()
        if self.config.fallback == "none":
            return None
        return DrafterChoice() if self.config.speculative == "auto" else CostModel()

    def _start_trace(self) -> Trace | None:
        if self.config.trace is None:
            return None
        trace = Trace(self.config.trace)
        self._stack.callback(trace.close)
        return trace

    def _start_pager(self) -> Pager:
        if self.model.mapping is None:
            return NullPager()
        plan = self.plan
        pager = StreamingPager(
            self.model.mapping, plan.layout, plan.window, plan.experts, self._trace, ahead=self.config.pipeline
        )
        self._stack.callback(pager.close)
        return pager


def _usable(path: str | Path) -> Header:
    header = read_header(Path(path))
    check_generative(header)
    return header


def check_context(n_ctx: int, verifier: Header) -> None:
    """Raises ConfigError for more tokens than the model was trained for."""
    trained = verifier.get("context_length", n_ctx)
    if n_ctx > trained:
        raise ConfigError(
            f"a context of {n_ctx} tokens exceeds the {trained} that {verifier.path} was trained for: lower --ctx"
        )


def default_threads() -> int:
    """Cores that this process may run on, hyper-threads not counted."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))
