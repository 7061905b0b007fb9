"""The engine: rounds of draft, verify and accept over two models, as stages of a pipeline."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from cadcpp.draft.base import Drafter
from cadcpp.errors import ConfigError, ContextFull
from cadcpp.native.sampler import Sampler
from cadcpp.policy.base import Disk, Observation, Policy
from cadcpp.policy.draft_temperature import DraftTemperature
from cadcpp.residency.pager import NullPager, Pager
from cadcpp.residency.tree_buffers import TreeBuffers
from cadcpp.runtime.stages import Step, Steps, finish, in_background, run, stage
from cadcpp.telemetry.progress import Progress
from cadcpp.telemetry.stats import Stats
from cadcpp.telemetry.trace import Trace
from cadcpp.tree.limits import TreeConfig
from cadcpp.tree.prices import SIZES, TEXT_ROWS, hidden_rows
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import Accepted, Walk
from cadcpp.verify.verifier import Draw, OnLogits, Verifier

T = TypeVar("T")
_COLD = 2  # passes until reads and memory have settled
_NOTICE_S = 0.02  # within which the end of a pass is noticed beside it


@dataclass(frozen=True, slots=True)
class Round:
    """One verify pass and what came of it."""

    tokens: list[int]  # new text, the end token not included
    tree: TokenTree
    accepted: Accepted
    finish: str | None = None  # "stop": the model ended the text; "length": n or the context is reached


@dataclass(slots=True)
class Work:
    """One text being written."""

    ids: list[int]
    draw: Draw
    limit: int  # tokens of the whole text
    stats: Stats
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Draft:
    """A tree and what it cost."""

    tree: TokenTree
    n_evaluated: int
    n_uncached: int  # tokens of text that the pass takes along, the tree's root included
    read_s: float  # taking up a text
    grow_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a pass took; seconds."""

    start: float
    stop: float
    stalled: float  # waiting for streamed weights

    @property
    def seconds(self) -> float:
        return self.stop - self.start


@dataclass(slots=True)
class OpenRound:
    """A round whose walk is not over: its tokens are drawn one by one, as they are asked for."""

    engine: "Engine"
    work: Work
    draft: Draft
    cost: Cost
    walk: Walk
    stack: ExitStack  # of what the pass ran in

    def close(self) -> Round:
        """Keep what was drawn, at least one token, and let go of the rest of the tree."""
        accepted, tree = self.walk.accepted(), self.draft.tree
        with self.stack:
            self.engine.verifier.commit(self.work.ids, tree, accepted)
        if self.walk.over:  # a walk cut short says nothing about the draft
            self.engine.account(self.work, self.draft, accepted, self.cost)
        result = self.engine.result(self.work, tree, accepted)
        self.work.ids += accepted.tokens(tree)
        return result


@dataclass(slots=True)
class Engine:
    """Writes text with a verifier and a drafter; keeps what both have evaluated for the next call."""

    verifier: Verifier
    drafter: Drafter
    n_ctx: int  # tokens of text, prompt included
    tree: TreeConfig = field(default_factory=TreeConfig)
    pager: Pager = field(default_factory=NullPager)
    policy: Policy | None = None  # None: trees of the given size, always
    trace: Trace | None = None
    tree_buffers: TreeBuffers = field(default_factory=TreeBuffers)  # how wide passes may be
    ahead: bool = False  # whether to draft on while a pass waits for the disk
    draft_temperature: DraftTemperature = field(default_factory=DraftTemperature)
    n_decodes: int = 0  # of the draft, as far as they are counted

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
        return run(self.steps(prompt, sampler, n, stats=stats, progress=progress))

    def steps(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        n: int,
        *,
        stats: Stats | None = None,
        progress: Progress | None = None,
    ) -> Steps[Round]:
        """What `rounds` does, in steps. Closing it ends a pass that is under way."""
        self._check(prompt, n)
        limit = min(len(prompt) + n, self.n_ctx)
        work = Work(list(prompt), sampler.draw, limit, stats if stats is not None else Stats(), progress)
        try:
            while True:
                result = yield from self._round(work)
                work.ids += result.tokens
                yield result
                if result.finish:
                    return
        finally:
            self.stop()
            finish(self.rollback)

    def open_round(self, work: Work) -> Step[OpenRound]:
        """A round up to its walk. Whatever goes wrong leaves both caches valid."""
        try:
            with ExitStack() as stack:
                draft = yield from self._begin(work, stack)
                choose, cost = yield from self._stage(self._timed, self.verifier.evaluate, work, draft)
                return OpenRound(self, work, draft, cost, Walk(draft.tree, choose), stack.pop_all())
        except BaseException:
            finish(self.rollback)
            raise

    def read(self, ids: Sequence[int], on_logits: OnLogits | None = None) -> Step[None]:
        """`Verifier.read` as a stage. Whatever goes wrong leaves both caches valid."""
        try:
            yield from self._stage(self.verifier.read, ids, on_logits)
        except BaseException:
            finish(self.rollback)
            raise

    def _check(self, prompt: Sequence[int], n: int) -> None:
        if not prompt:
            raise ConfigError("the prompt is empty: give at least one token")
        if n < 1:
            raise ConfigError(f"n must be at least 1, got {n}")
        if len(prompt) >= self.n_ctx:
            raise ContextFull(
                f"the prompt has {len(prompt)} tokens, the context {self.n_ctx}: shorten it or raise --ctx"
            )

    def _round(self, work: Work) -> Step[Round]:
        with ExitStack() as stack:
            draft = yield from self._begin(work, stack)
            accepted = yield from self._stage(self._verify, work, draft)
        return self.result(work, draft.tree, accepted)

    def _begin(self, work: Work, stack: ExitStack) -> Step[Draft]:
        yield from self._stage(self._prepare, work, stack)
        return (yield from self._stage(self._draft, work))

    def _stage(self, work: Callable[..., T], *args: Any) -> Step[T]:
        return stage(self.stop, work, *args)

    def stop(self) -> None:
        """End the decodes that are under way, from another thread, with Stopped; `rollback` undoes it."""
        self.drafter.stop()
        self.verifier.stop()

    def rollback(self) -> None:
        """Leave both caches valid, whatever was interrupted."""
        for cached in (self.drafter, self.verifier):
            cached.resume()
            cached.rollback()

    def result(self, work: Work, tree: TokenTree, accepted: Accepted) -> Round:
        """A round as it is told to others; counts it."""
        tokens = accepted.tokens(tree)
        ended = self.verifier.context.model.is_end(accepted.bonus)
        if ended:
            tokens.pop()
        stats = work.stats
        stats.passes += 1
        stats.drafted += len(tree) - 1
        stats.accepted += len(accepted.rows) - 1
        stats.emitted += len(tokens)
        full = len(work.ids) + len(tokens) >= work.limit
        return Round(tokens, tree, accepted, "stop" if ended else "length" if full else None)

    # stages -----------------------------------------------------------------------------------------

    def _prepare(self, work: Work, stack: ExitStack) -> None:
        hidden = min(hidden_rows(self.pager.state().byte_seconds), self.tree_buffers.most)
        stack.enter_context(self.verifier.wide_enough(work.ids, max(hidden, self.tree_buffers.rows)))
        self.verifier.prefill(work.ids, work.progress)

    def _draft(self, work: Work) -> Draft:
        start, n_uncached = time.perf_counter(), self.verifier.n_uncached(work.ids)
        self._look()
        drafts = self.policy is None or self.policy.pays()
        if drafts and work.limit - len(work.ids) > 1:
            self.drafter.read(work.ids)
        begun = time.perf_counter()
        tree = self._grow(work) if drafts else TokenTree.root(work.ids[-1])
        n_evaluated = self.drafter.n_evaluated if len(tree) > 1 else 0
        work.stats.draft_decodes += self.drafter.n_decodes - self.n_decodes
        self.n_decodes = self.drafter.n_decodes
        stop = time.perf_counter()
        self._allow(n_uncached - 1 + len(tree), len(tree))
        if self.trace is not None:
            self.trace.span(
                "draft", "draft", start, stop, rows=len(tree), evaluated=n_evaluated, kept=self.drafter.n_kept
            )
        return Draft(tree, n_evaluated, n_uncached, begun - start, stop - begun)

    def _look(self) -> None:
        """Tell the policy what is known of the disk by now."""
        if self.policy is not None:
            now = self.pager.state()
            self.policy.look(
                Disk(
                    byte_s=now.byte_seconds,
                    stream_s=now.pass_seconds,
                    beyond_s=now.byte_seconds * self.tree_buffers.beyond(SIZES),
                    ahead_s=now.ahead_seconds,
                )
            )

    def _allow(self, n_rows: int, n_outputs: int) -> None:
        """Memory for a pass; a context that was made for it has its own, and for a short text only logits need any."""
        if not self.verifier.widened:
            self.pager.reserve(self.tree_buffers.take(n_rows if n_rows > TEXT_ROWS else n_outputs))

    def _grow(self, work: Work) -> TokenTree:
        ids, max_depth = work.ids, work.limit - len(work.ids) - 1
        tree = self.tree.up_to(self.verifier.room(ids))
        config = replace(tree, temperature=self.draft_temperature.temperature)
        self._look()  # again, for in the meantime a text was read
        if self.policy is not None:
            config = self.policy.limits(config, self.verifier.n_uncached(ids))
        return self.drafter.grow(ids, config, max_depth)

    def _verify(self, work: Work, draft: Draft) -> Accepted:
        accepted, cost = self._timed(self.verifier.check, work, draft)
        self.account(work, draft, accepted, cost)
        return accepted

    def _timed(self, check: Callable[..., T], work: Work, draft: Draft) -> tuple[T, Cost]:
        start, stalled = time.perf_counter(), self.pager.state().stall_seconds
        with in_background(self._draft_ahead) if self.ahead else nullcontext():
            checked = check(work.ids, draft.tree, work.draw, work.progress)
        return checked, Cost(start, time.perf_counter(), self.pager.state().stall_seconds - stalled)

    def account(self, work: Work, draft: Draft, accepted: Accepted, cost: Cost) -> None:
        """Learn from a round, count and trace it."""
        self._learn(work, draft, accepted, cost)
        work.stats.draft_seconds += draft.read_s + draft.grow_s
        work.stats.verify_seconds += cost.seconds
        if self.trace is not None:
            counts = {"rows": draft.n_uncached - 1 + len(draft.tree), "tail": draft.n_uncached}
            plan = self.policy.describe() if self.policy else {}
            self.trace.span("verify", "pass", cost.start, cost.stop, **counts, accepted=len(accepted.rows) - 1, **plan)

    def _draft_ahead(self, over: Callable[[], bool]) -> None:
        n = self.policy.n_ahead(self.tree) if self.policy else self.tree.max_size
        if n > 0:
            self.drafter.ahead(Gate(self.pager, over, self.trace), n)

    def _learn(self, work: Work, draft: Draft, accepted: Accepted, cost: Cost) -> None:
        tree, n_accepted = draft.tree, len(accepted.rows) - 1
        if len(tree) > 1:
            self.draft_temperature.observe(n_accepted, float(np.exp(tree.logp[1:]).sum()))
        if self.policy is None:
            return
        passes = self.pager.state().passes
        self.policy.observe(
            Observation(
                n_rows=draft.n_uncached - 1 + len(tree),
                cold=0 < passes <= _COLD,
                n_evaluated=draft.n_evaluated,
                n_tokens=n_accepted + 1,
                n_accepted=n_accepted,
                n_branch=tree.reach(accepted.rows[-1]),
                logp=tree.logp,
                depth=tree.depth,
                draft_s=draft.grow_s,
                compute_s=cost.seconds - cost.stalled,
                stall_s=cost.stalled,
            )
        )

    def close(self) -> None:
        """Free both contexts. May be called twice."""
        self.drafter.close()
        self.verifier.close()


@dataclass(slots=True)
class Gate:
    """Open while a pass waits for the disk. Asked before each decode of the draft, so it knows when they run."""

    pager: Pager
    over: Callable[[], bool]  # whether the pass is
    trace: Trace | None
    opened: float | None = None

    def __call__(self) -> bool:
        """Wait until it opens; False when the pass is over."""
        if self.trace is not None and self.opened is not None:
            self.trace.span("draft", "ahead", self.opened, time.perf_counter())
        self.opened = None
        while not self.over():
            if self.pager.wait_for_stall(_NOTICE_S):
                self.opened = time.perf_counter()
                return True
        return False
