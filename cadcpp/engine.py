"""The engine: rounds of plan, draft, verify and commit over two models."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cadcpp.accept import Accepted
from cadcpp.cache import Progress
from cadcpp.calibration import Calibration
from cadcpp.config import TreeConfig
from cadcpp.drafter import Drafter, NoDrafter
from cadcpp.errors import ConfigError, ContextFull
from cadcpp.native.sampler import Sampler
from cadcpp.pager import NullPager, Pager
from cadcpp.planner import Observation, Policy
from cadcpp.stats import Stats
from cadcpp.trace import Trace
from cadcpp.tree import TokenTree
from cadcpp.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Round:
    """One verify pass and what came of it."""

    tokens: list[int]  # new text, the end token not included
    tree: TokenTree
    accepted: Accepted
    finish: str | None = None  # "stop": the model ended the text; "length": n or the context is reached


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
    calibration: Calibration = field(default_factory=Calibration)

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
        self._check(prompt, n)
        stats = stats if stats is not None else Stats()
        ids, limit = list(prompt), min(len(prompt) + n, self.n_ctx)
        try:
            while True:
                with self.verifier.wide_enough(ids, self.tree.rows):
                    self.verifier.prefill(ids, progress)
                    result = self._round(ids, sampler, limit, stats, progress)
                ids += result.tokens
                yield result
                if result.finish:
                    return
        finally:
            self.drafter.settle()
            self.verifier.settle()

    def _check(self, prompt: Sequence[int], n: int) -> None:
        if not prompt:
            raise ConfigError("the prompt is empty: give at least one token")
        if n < 1:
            raise ConfigError(f"n must be at least 1, got {n}")
        if len(prompt) >= self.n_ctx:
            raise ContextFull(
                f"the prompt has {len(prompt)} tokens, the context {self.n_ctx}: shorten it or raise --ctx"
            )

    def _round(self, ids: list[int], sampler: Sampler, limit: int, stats: Stats, progress: Progress | None) -> Round:
        start, n_tail = time.perf_counter(), self.verifier.tail(ids)
        tree = self._draft(ids, limit - len(ids) - 1)
        drafted, stalled = time.perf_counter(), self.pager.state().stall_seconds
        accepted = self.verifier.check(ids, tree, sampler.draw, progress)
        verified = time.perf_counter()
        tokens = accepted.tokens(tree)
        ended = self.verifier.context.model.is_end(accepted.bonus)
        if ended:
            tokens.pop()
        stats.passes += 1
        stats.drafted += len(tree) - 1
        stats.accepted += len(accepted.rows) - 1
        stats.emitted += len(tokens)
        stats.draft_seconds += drafted - start
        stats.verify_seconds += verified - drafted
        if self.trace is not None:
            self.trace.span("draft", "draft", start, drafted, rows=len(tree), evaluated=self.drafter.n_evaluated)
            counts = {"rows": n_tail - 1 + len(tree), "tail": n_tail, "accepted": len(accepted.rows) - 1}
            self.trace.span("verify", "pass", drafted, verified, **counts)
        self._learn(n_tail, tree, accepted, drafted - start, verified - drafted, stalled)
        full = len(ids) + len(tokens) >= limit
        return Round(tokens, tree, accepted, "stop" if ended else "length" if full else None)

    def _draft(self, ids: list[int], max_depth: int) -> TokenTree:
        rows = min(self.tree.rows, self.verifier.room(ids))
        config = replace(self.tree, rows=rows, temperature=self.calibration.temperature)
        if self.policy is None:
            return self.drafter.grow(ids, config, max_depth)
        if not self.policy.pays():
            return NoDrafter().grow(ids, config, max_depth)
        return self.drafter.grow(ids, self.policy.limits(config, self.verifier.tail(ids)), max_depth)

    def _learn(
        self, n_tail: int, tree: TokenTree, accepted: Accepted, draft_s: float, verify_s: float, stalled_s: float
    ) -> None:
        expected = float(np.exp(tree.logp[1:]).sum())
        if len(tree) > 1:
            self.calibration.observe(len(accepted.rows) - 1, expected)
        if self.policy is None:
            return
        now = self.pager.state()
        self.policy.observe(
            Observation(
                n_rows=n_tail - 1 + len(tree),
                n_tail=n_tail,
                n_evaluated=self.drafter.n_evaluated if len(tree) > 1 else 0,
                n_tokens=len(accepted.rows),
                n_accepted=len(accepted.rows) - 1,
                n_branch=tree.reach(accepted.rows[-1]),
                expected=expected,
                draft_s=draft_s,
                compute_s=verify_s - (now.stall_seconds - stalled_s),
                stream_s=now.pass_seconds,
                ahead_s=now.ahead_seconds,
            )
        )

    def close(self) -> None:
        """Free both contexts. May be called twice."""
        self.drafter.close()
        self.verifier.close()
