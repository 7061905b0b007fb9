"""What decides how much to draft: what it is told, and what it is asked."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cadcpp.policy.pass_cost import PassCost
from cadcpp.tree.limits import DraftBudget, TreeLimits
from cadcpp.tree.prices import SIZES, Floats, Prices, RowReads, alike
from cadcpp.tree.token_tree import TokenTree


def _nothing() -> Floats:
    return np.zeros(SIZES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What the next pass will wait for, as far as reading was measured; seconds."""

    byte_s: float = 0.0  # of reading one byte
    stream_s: float = 0.0  # least time of a pass: all bytes that it streams
    beyond_s: Floats = field(default_factory=_nothing)  # ... more, if it had n rows and so took memory of weights, [n]
    routed_s: Floats = field(default_factory=_nothing)  # ... beside that, for the experts that n rows use, [n]
    row_reads: RowReads = alike  # how many experts rows of some tokens read, beside others
    ahead_s: float = 0.0  # drafting time for which the disk has work all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """A round that begins, as its policy sees it."""

    limits: TreeLimits
    max_depth: int  # levels of a tree below its root that could become text
    n_chains: int | None = None  # that a tree may be; None: it may have any shape
    n_uncached: int = 1  # tokens of text that the pass evaluates anyway, the tree's root included
    n_behind: int = 0  # tokens of text that a draft model would have to read first
    temperature: float = 1.0  # of the draft's probabilities, as its calibration found it
    disk: Disk = field(default_factory=Disk)

    def budget(
        self,
        max_size: int | None = None,
        *,
        prices: Prices | None = None,
        min_confidence: float = 0.0,
        n_ahead: int = 0,
    ) -> DraftBudget:
        """A budget for this round; what is not given is as large as the limits are, and free."""
        return DraftBudget(
            max_size=self.limits.max_size if max_size is None else max_size,
            max_depth=self.max_depth,
            n_chains=self.n_chains,
            temperature=self.temperature,
            prices=prices or Prices(),
            min_confidence=min_confidence,
            n_ahead=n_ahead,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one round cost; seconds."""

    n_rows: int  # of the verify pass, the text's uncached tokens included
    cold: bool = False  # one of the first passes of all: what stays in memory is read, and memory is cleared for it
    n_evaluated: int  # nodes that the draft evaluated, also where no tree came of it
    n_tokens: int  # of text that came of it
    n_accepted: int = 0  # drafted tokens that were right
    n_branch: int = 0  # ... of how many on the branch that matched best
    logp: NDArray[np.float32] = field(default_factory=lambda: np.zeros(1, np.float32))  # of the tree's nodes, [n]
    depth: NDArray[np.int32] = field(default_factory=lambda: np.zeros(1, np.int32))  # ... and their depth, [n]
    rows_per_node: float = 1.0  # of the pass, below the root; more where each of several chains has its own text
    n_read: int = 0  # tokens of text that the draft model read before, in passes of many
    read_s: float = 0.0  # ... in so long
    draft_s: float
    compute_s: float  # of the verify pass, waiting for the disk not included
    stall_s: float = 0.0  # ... of that waiting
    elsewhere_s: float = 0.0  # of compute_s, what workers computed or their links took
    alternative: TokenTree | None = None  # what the text alone would have drafted, where that was asked for


class Policy(Protocol):
    """Decides once a round how much to draft, and learns from what came of it."""

    @property
    def verify(self) -> PassCost:
        """What passes were measured to take; empty where that is not measured."""
        ...

    def uses_model(self, n_behind: int) -> bool:
        """Whether a draft model is likely to draft the next tree, so that it should read ``n_behind`` tokens before."""
        ...

    def plan(self, state: RoundState) -> DraftBudget | None:
        """What the next tree may cost; None: nothing is drafted in this round."""
        ...

    def observe(self, seen: Observation) -> None: ...

    def describe(self) -> dict[str, float]:
        """What it goes by, for a trace."""
        ...


class FixedSize:
    """Trees as large as the limits are, always."""

    @property
    def verify(self) -> PassCost:
        return PassCost()  # no size depends on time

    def uses_model(self, n_behind: int) -> bool:
        return True

    def plan(self, state: RoundState) -> DraftBudget | None:
        return state.budget(n_ahead=state.limits.max_size)

    def observe(self, seen: Observation) -> None:
        pass

    def describe(self) -> dict[str, float]:
        return {}


class NoDrafting:
    """Plain decoding: there is nothing to decide, so nothing is measured either."""

    @property
    def verify(self) -> PassCost:
        return PassCost()

    def uses_model(self, n_behind: int) -> bool:
        return False

    def plan(self, state: RoundState) -> DraftBudget | None:
        return None

    def observe(self, seen: Observation) -> None:
        pass

    def describe(self) -> dict[str, float]:
        return {}
