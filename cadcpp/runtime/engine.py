"""The engine: rounds of draft, verify and accept over two models, as stages of a pipeline."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import ParamSpec, TypeVar

import numpy as np

from cadcpp.draft.base import DraftedTree, Drafter
from cadcpp.errors import ConfigError, ContextFull
from cadcpp.link.traffic import NoWorkers, Workers
from cadcpp.native.sampler import Draw, Sampler
from cadcpp.policy.base import FixedSize, Policy, RoundState
from cadcpp.policy.carried_text import CarriedText
from cadcpp.policy.draft_temperature import DraftTemperature
from cadcpp.residency.cache_fill import CacheFill
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.residency.pager import NullPager, Pager
from cadcpp.residency.tree_buffers import TreeBuffers, measured
from cadcpp.runtime.accounting import Accounting
from cadcpp.runtime.compute_threads import ComputeThreads
from cadcpp.runtime.gate import Gate
from cadcpp.runtime.round import DraftRecord, OpenRound, PassRecord, Round, RoundRecord
from cadcpp.runtime.stages import Step, Steps, finish, in_background, run, stage
from cadcpp.sampling.coupling import Coupling
from cadcpp.telemetry.progress import Progress
from cadcpp.telemetry.stats import Stats
from cadcpp.telemetry.trace import Trace
from cadcpp.tree.limits import DraftBudget, TreeLimits
from cadcpp.tree.prices import TEXT_ROWS, hidden_rows
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import Accepted, Walk
from cadcpp.verify.text_state import TextState
from cadcpp.verify.verifier import OnLogits, Verifier

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(slots=True)
class Generation:
    """One text being written."""

    text: TextState
    draw: Draw
    limit: int  # tokens of the whole text
    accounting: Accounting
    progress: Progress | None = None
    coupling: Coupling | None = None  # what drafters may know of the draws


@dataclass(slots=True)
class Engine:
    """Writes text with a verifier and a drafter; keeps what both have evaluated for the next call."""

    verifier: Verifier
    drafter: Drafter
    n_ctx: int  # tokens of text, prompt included
    limits: TreeLimits = field(default_factory=TreeLimits)
    pager: Pager = field(default_factory=NullPager)
    policy: Policy = field(default_factory=FixedSize)
    trace: Trace | None = None
    tree_buffers: TreeBuffers = field(default_factory=TreeBuffers)  # how wide passes may be
    cache_fill: CacheFill = field(default_factory=CacheFill)  # how much memory the KV caches take
    ahead: bool = False  # whether to draft on while a pass waits for the disk or for workers
    draft_temperature: DraftTemperature = field(default_factory=DraftTemperature)
    kernels: KernelMode = KernelMode()  # how the verifier computes
    streaming_limited: str = ""  # what of streaming is not to be had, and why
    workers: Workers = field(default_factory=NoWorkers)
    carried: CarriedText = field(default_factory=CarriedText)
    threads: ComputeThreads = field(default_factory=lambda: ComputeThreads(1))
    after_round: Callable[[], None] = lambda: None  # what is decided between two rounds
    _writes: Lock = field(default_factory=Lock)  # a round that is not over

    def rounds(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        n: int,
        *,
        stats: Stats | None = None,
        progress: Progress | None = None,
    ) -> Generator[Round, None, None]:
        """Generate up to ``n`` tokens after ``prompt``, a round at a time.

        Only what the caches do not hold of the prompt is evaluated. Closing the generator at any point
        leaves both caches valid. Raises ContextFull if the prompt leaves no room for one token.
        """
        return run(self.steps(prompt, sampler, n, accounting=self.accounting(stats), progress=progress))

    def accounting(self, stats: Stats | None = None, load_seconds: float = 0.0) -> Accounting:
        """An accountant for a generation that begins now."""
        return Accounting(
            stats if stats is not None else Stats(),
            self.pager,
            self.trace,
            n_decodes=self.drafter.n_decodes,
            load_seconds=load_seconds,
            kernels=self.kernels,
            streaming_limited=self.streaming_limited,
            traffic=self.workers.traffic,
        )

    def steps(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        n: int,
        *,
        accounting: Accounting,
        progress: Progress | None = None,
    ) -> Steps[Round]:
        """What `rounds` does, in steps. Closing it ends a pass that is under way."""
        _check(prompt, n, self.n_ctx)
        limit = min(len(prompt) + n, self.n_ctx)
        generation = Generation(TextState(list(prompt)), sampler.draw, limit, accounting, progress, sampler.coupling)
        try:
            while True:
                result = yield from self._round(generation)
                yield result
                if result.finish:
                    return
        finally:
            self._end()

    def open_round(self, generation: Generation) -> Step[OpenRound]:
        """A round up to its walk. Whatever goes wrong leaves both caches valid."""
        with self._caches_valid(), ExitStack() as stack:
            walk, close = yield from self._stage(self._open, generation, stack)
            return OpenRound(walk, close, stack.pop_all())

    def read(self, ids: Sequence[int], on_logits: OnLogits | None = None) -> Step[None]:
        """`Verifier.read` as a stage. Whatever goes wrong leaves both caches valid."""
        with self._caches_valid():
            yield from self._stage(self._read, ids, on_logits)

    def stop(self) -> None:
        """End the decodes that are under way, from another thread, with Stopped; `rollback` undoes it."""
        self.drafter.stop()
        self.verifier.stop()

    def rollback(self) -> None:
        """Leave both caches valid, whatever was interrupted."""
        for cached in (self.drafter, self.verifier):
            cached.resume()
            cached.rollback()

    def close(self) -> None:
        """Free both contexts. May be called twice."""
        self.drafter.close()
        self.verifier.close()

    def _round(self, generation: Generation) -> Step[Round]:
        if not self._writes.acquire(blocking=False):
            raise ConfigError("this session is writing another text on another thread: wait for it, or take a Llama")
        try:
            with self._caches_valid():
                return (yield from self._stage(self._complete, generation))
        finally:
            self._writes.release()

    def _end(self) -> None:
        """End what is left of a text, unless another one is being written, to which it left nothing."""
        if self._writes.acquire(blocking=False):
            try:
                self.stop()
                finish(self.rollback)
            finally:
                self._writes.release()

    def _stage(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Step[T]:
        return stage(self.stop, work, *args, **kwargs)

    @contextmanager
    def _caches_valid(self) -> Iterator[None]:
        """Whatever goes wrong inside leaves both so."""
        try:
            yield
        except BaseException:
            finish(self.rollback)
            raise

    # on the computing thread ------------------------------------------------------------------------

    def _complete(self, generation: Generation) -> Round:
        """A round in one stage, since every change of threads costs a plain round a percent of its time."""
        with ExitStack() as stack:
            return OpenRound(*self._open(generation, stack), stack).complete()

    def _open(self, generation: Generation, stack: ExitStack) -> tuple[Walk, Callable[[Accepted, bool], Round]]:
        """A round up to its walk."""
        self._begin(generation, stack)
        draft = self._draft(generation)
        choose, verify = self._evaluate(generation, draft)
        return Walk(draft.drafted.tree, choose), lambda *result: self._close(generation, draft, verify, *result)

    def _read(self, ids: Sequence[int], on_logits: OnLogits | None) -> None:
        self._hold(len(ids))
        self.verifier.read(ids, on_logits)

    def _begin(self, generation: Generation, stack: ExitStack) -> None:
        """Evaluate the text as far as that takes passes of its own."""
        text = generation.text
        if self.threads.follow():
            self.policy.verify.doubt()
        self.verifier.begin(text)
        self._hold(len(text.ids))
        hidden = min(hidden_rows(self.pager.state().byte_seconds), self.tree_buffers.most)
        stack.enter_context(self.verifier.wide_enough(text, max(hidden, self.tree_buffers.rows)))
        self.verifier.prefill(text, generation.progress)

    def _draft(self, generation: Generation) -> DraftRecord:
        text, start = generation.text, time.perf_counter()
        max_depth = generation.limit - len(text.ids) - 1
        n_behind = self.drafter.behind(text.ids)
        reads = max_depth > 0 and self.policy.uses_model(n_behind)
        n_read = self.drafter.read(text.ids, n_behind) if reads else 0
        begun = time.perf_counter()
        state = self._state(text, max_depth, 0 if reads else n_behind)
        budget = None if self._must_keep(state) else self.policy.plan(state)
        drafted = self._grow(generation, budget)
        stop = time.perf_counter()
        record = DraftRecord(
            drafted=drafted,
            n_uncached=text.n_uncached,
            n_rows=self.verifier.n_rows(text, drafted.tree),
            n_decodes=self.drafter.n_decodes,
            n_ahead=budget.n_ahead if budget else 0,
            n_read=n_read,
            start=start,
            begun=begun,
            stop=stop,
        )
        self._reserve(len(text.ids), record.n_rows, len(drafted.tree))
        return record

    def _state(self, text: TextState, max_depth: int, n_behind: int) -> RoundState:
        return RoundState(
            limits=self.limits.up_to(self.verifier.room(text)),
            max_depth=min(max_depth, self.verifier.reach(text)),
            n_chains=self.verifier.n_chains,
            n_uncached=text.n_uncached,
            n_behind=n_behind,
            temperature=self.draft_temperature.temperature,
            disk=measured(self.pager.state(), self.tree_buffers),
        )

    def _must_keep(self, state: RoundState) -> bool:
        """Whether nothing is drafted, since text would be evaluated once more too often otherwise."""
        if not self.verifier.carries:
            return False
        return self.carried.is_due(state.n_uncached, np.maximum(self.policy.verify.estimate(), state.disk.stream_s))

    def _grow(self, generation: Generation, budget: DraftBudget | None) -> DraftedTree:
        ids, coupling = generation.text.ids, generation.coupling
        if budget is None:
            return DraftedTree(tree=TokenTree.root(ids[-1]))
        drafted = self.drafter.grow(ids, replace(budget, coupling=coupling and coupling.after(ids)))
        return replace(drafted, tree=self.verifier.fit(generation.text, drafted.tree, budget))

    def _reserve(self, n_text: int, n_rows: int, n_outputs: int) -> None:
        """Memory for a pass; a context that was made for it has its own, and for a short text only logits need any."""
        if not self.verifier.widened:
            self.tree_buffers.allow(n_rows if n_rows > TEXT_ROWS else n_outputs)
            self._hold(n_text + n_rows)

    def _hold(self, n_cells: int) -> None:
        """Memory for so many cells of the KV caches, beside that of the widest pass so far."""
        self.cache_fill.reach(n_cells)
        self.pager.reserve(self.tree_buffers.taken + self.cache_fill.taken)

    def _evaluate(self, generation: Generation, draft: DraftRecord) -> tuple[Callable[[int], int], PassRecord]:
        start, stalled = time.perf_counter(), self.pager.state().stall_seconds
        before_s = self.workers.traffic().waiting_seconds
        with in_background(self._draft_ahead, draft.n_ahead) if self.ahead and draft.n_ahead else nullcontext():
            choose = self.verifier.evaluate(generation.text, draft.drafted.tree, generation.draw, generation.progress)
        stop, stall_s = time.perf_counter(), self.pager.state().stall_seconds - stalled
        elsewhere_s = self.workers.traffic().waiting_seconds - before_s
        return choose, PassRecord(start=start, stop=stop, stall_s=stall_s, elsewhere_s=elsewhere_s)

    def _draft_ahead(self, over: Callable[[], bool], n: int) -> None:
        self.drafter.ahead(Gate(self.pager, self.workers, over, self.trace), n)

    def _close(
        self, generation: Generation, draft: DraftRecord, verify: PassRecord, accepted: Accepted, whole: bool
    ) -> Round:
        """Commit a round, learn from it, count it, and tell of it."""
        text, tree = generation.text, draft.drafted.tree
        self.verifier.commit(text, tree, accepted)
        tokens = accepted.tokens(tree)
        ended = self.verifier.context.model.is_end(accepted.bonus)
        if ended:
            tokens.pop()
        n_paged = self.pager.state().passes
        record = RoundRecord(draft=draft, verify=verify, accepted=accepted, n_emitted=len(tokens), n_paged=n_paged)
        if whole:  # a walk cut short says nothing about the draft
            self._learn(record)
        generation.accounting.count(record, self.policy.describe)
        full = len(text.ids) - ended >= generation.limit
        return Round(tokens, tree, accepted, "stop" if ended else "length" if full else None)

    def _learn(self, record: RoundRecord) -> None:
        tree, n_accepted = record.draft.drafted.tree, len(record.accepted.rows) - 1
        if len(tree) > 1:
            self.draft_temperature.observe(n_accepted, float(np.exp(tree.logp[1:]).sum()))
        self.policy.observe(record.observation())
        self.after_round()


def _check(prompt: Sequence[int], n: int, n_ctx: int) -> None:
    if not prompt:
        raise ConfigError("the prompt is empty: give at least one token")
    if n < 1:
        raise ConfigError(f"n must be at least 1, got {n}")
    if len(prompt) >= n_ctx:
        raise ContextFull(f"the prompt has {len(prompt)} tokens, the context {n_ctx}: shorten it or raise --ctx")
