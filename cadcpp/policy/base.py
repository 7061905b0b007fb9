"""What decides how much to draft: what it is told, and what it is asked."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cadcpp.policy.pass_cost import PassCost
from cadcpp.tree.limits import TreeConfig
from cadcpp.tree.prices import SIZES, Floats


def _nothing() -> Floats:
    return np.zeros(SIZES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What the next pass will wait for, as far as reading was measured; seconds."""

    byte_s: float = 0.0  # of reading one byte
    stream_s: float = 0.0  # least time of a pass: all bytes that it streams
    beyond_s: Floats = field(default_factory=_nothing)  # ... more, if it had n rows and so took memory of weights, [n]
    ahead_s: float = 0.0  # drafting time for which the disk has work all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one round cost; seconds."""

    n_rows: int  # of the verify pass, the text's tail included
    cold: bool = False  # one of the first passes of all: what stays in memory is read, and memory is cleared for it
    n_evaluated: int  # nodes that the draft evaluated
    n_tokens: int  # of text that came of it
    n_accepted: int = 0  # drafted tokens that were right
    n_branch: int = 0  # ... of how many on the branch that matched best
    logp: NDArray[np.float32] = field(default_factory=lambda: np.zeros(1, np.float32))  # of the tree's nodes, [n]
    depth: NDArray[np.int32] = field(default_factory=lambda: np.zeros(1, np.int32))  # ... and their depth, [n]
    draft_s: float
    compute_s: float  # of the verify pass, waiting for the disk not included
    stall_s: float = 0.0  # ... of that waiting


class Policy(Protocol):
    """Decides before each round how much to draft, and learns from what came of it."""

    @property
    def verify(self) -> PassCost:
        """What passes were measured to take; empty where that is not measured."""
        ...

    def look(self, disk: Disk) -> None:
        """A round begins."""
        ...

    def limits(self, config: TreeConfig, n_uncached: int) -> TreeConfig: ...

    def pays(self) -> bool: ...

    def n_ahead(self, config: TreeConfig) -> int:
        """Nodes to evaluate while a pass waits for the disk."""
        ...

    def observe(self, seen: Observation) -> None: ...

    def describe(self) -> dict[str, float]:
        """What it goes by, for a trace."""
        ...
