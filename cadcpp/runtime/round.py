"""One round of draft, verify and accept: what others are told of it, and what is recorded."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from cadcpp.draft.base import DraftedTree
from cadcpp.policy.base import Observation
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import Accepted, Walk

_COLD = 2  # passes until reads and memory have settled


@dataclass(frozen=True, slots=True)
class Round:
    """One verify pass and what came of it."""

    tokens: list[int]  # new text, the end token not included
    tree: TokenTree
    accepted: Accepted
    finish: str | None = None  # "stop": the model ended the text; "length": n or the context is reached


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftRecord:
    """What was drafted, and when; seconds of time.perf_counter."""

    drafted: DraftedTree
    n_uncached: int  # tokens of text that the pass takes along, the tree's root included
    n_rows: int  # of the verify pass
    n_decodes: int  # of the draft model so far
    n_ahead: int  # nodes that may be evaluated beyond the tree during the pass
    n_read: int = 0  # tokens of a new text that the draft model read before it
    start: float
    begun: float  # growing the tree, after a new text was read
    stop: float

    @property
    def rows_per_node(self) -> float:
        """Of the tree below its root."""
        n_nodes = len(self.drafted.tree) - 1
        return (self.n_rows - self.n_uncached) / n_nodes if n_nodes else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecord:
    """When the verify pass ran; seconds."""

    start: float
    stop: float
    stall_s: float  # waiting for streamed weights
    elsewhere_s: float = 0.0  # waiting for workers

    @property
    def seconds(self) -> float:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """All that is known of a round when it is over; statistics, traces and policies are told out of it."""

    draft: DraftRecord
    verify: PassRecord
    accepted: Accepted
    n_emitted: int  # tokens of text that came of it, an end token not included
    n_paged: int  # passes of the pager so far; 0 without one

    def observation(self) -> Observation:
        """What a policy learns from."""
        drafted, draft = self.draft.drafted, self.draft
        n_accepted = len(self.accepted.rows) - 1
        return Observation(
            n_rows=draft.n_rows,
            cold=0 < self.n_paged <= _COLD,
            n_evaluated=drafted.n_evaluated,
            n_tokens=n_accepted + 1,
            n_accepted=n_accepted,
            n_branch=drafted.tree.reach(self.accepted.rows[-1]),
            logp=drafted.tree.logp,
            depth=drafted.tree.depth,
            rows_per_node=draft.rows_per_node,
            n_read=draft.n_read,
            read_s=draft.begun - draft.start,
            draft_s=draft.stop - draft.begun,
            compute_s=self.verify.seconds - self.verify.stall_s,
            stall_s=self.verify.stall_s,
            elsewhere_s=self.verify.elsewhere_s,
            alternative=drafted.alternative,
        )


class OpenRound:
    """A round after its pass: tokens are drawn one by one, and it ends when it is told to."""

    def __init__(self, walk: Walk, close: Callable[[Accepted, bool], Round], stack: ExitStack) -> None:
        """``close`` is told what was accepted, and whether the walk is over; ``stack`` is what the pass ran in."""
        self._walk, self._close, self._stack = walk, close, stack

    @property
    def over(self) -> bool:
        """Whether there is nothing more to draw."""
        return self._walk.over

    def step(self) -> int:
        """Draw one more token."""
        return self._walk.step()

    def finish(self) -> Round:
        """Commit what was drawn, at least one token, and let go of the rest of the tree."""
        with self._stack:
            return self._close(self._walk.accepted(), self._walk.over)

    def complete(self) -> Round:
        """Draw all that there is, and finish."""
        while not self.over:
            self.step()
        return self.finish()

    def __enter__(self) -> "OpenRound":
        return self

    def __exit__(self, *error: Any) -> None:
        """Let go of what the pass ran in, unless the round is finished."""
        self._stack.__exit__(*error)
