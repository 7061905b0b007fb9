"""Limits of one token tree: as settings give them, as a policy allows them for a round, and how it is grown."""

from dataclasses import dataclass, field, replace

from cadcpp.sampling.coupling import Coupling
from cadcpp.tree.prices import MAX_ROWS, Prices
from cadcpp.util.checks import check

_STREAMED_SIZE = 128  # nodes; more did not pay even at 100 MiB/s (bench.studies.fixed_sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeLimits:
    """How large a token tree may be, in nodes, its root included: each node is a row of the verify pass."""

    max_size: int = 64
    max_size_streamed: int = 0  # ... if more, where the cost model decides and so many rows would still wait for disk

    def __post_init__(self) -> None:
        check(1 <= self.max_size <= MAX_ROWS, "max-tree-size", self.max_size, f"between 1 and {MAX_ROWS}")
        check(self.max_size_streamed <= MAX_ROWS, "max-tree-size", self.max_size_streamed, f"at most {MAX_ROWS}")

    def up_to(self, n: int) -> "TreeLimits":
        """The same with at most ``n`` nodes."""
        if n >= max(self.max_size, self.max_size_streamed):
            return self
        return replace(self, max_size=min(self.max_size, n), max_size_streamed=min(self.max_size_streamed, n))


def limit_tree(max_size: int | None) -> TreeLimits:
    """Trees of at most ``max_size`` nodes; None: of as many as were found to pay."""
    return TreeLimits(max_size_streamed=_STREAMED_SIZE) if max_size is None else TreeLimits(max_size=max_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftBudget:
    """What a policy allows one round's tree."""

    max_size: int  # nodes, root included
    max_depth: int  # levels below the root: tokens that may still be written before the verifier's own
    n_chains: int | None = None  # that the tree may be; None: it may have any shape
    temperature: float = 1.0  # of the draft's probabilities
    coupling: Coupling | None = None  # how the verifier will draw, where that can be known
    prices: Prices = field(default_factory=Prices)  # what rows and nodes cost; by default they are free
    min_confidence: float = 0.0  # LLMCad's threshold alpha; only its branches look at it
    n_ahead: int = 0  # nodes to evaluate beyond the tree while the pass waits for the disk
    from_text: bool = False  # draft from the text alone, though there is a draft model
    compare: bool = False  # say as well what a tree from the text alone would be

    def up_to(self, n: int) -> "DraftBudget":
        """The same with at most ``n`` nodes, one at least."""
        return replace(self, max_size=max(min(self.max_size, n), 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthOptions:
    """How best-first growth walks through the likeliest nodes."""

    width: int = 4  # frontier nodes per draft decode, at most
    focus: float = 0.25  # a frontier node joins a decode if it is at least this likely, relative to the best
    cutoff: float = 0.001  # nodes with a smaller cumulative probability are not drafted
    reach: float = 2.0  # a node is evaluated if it is this much likelier than the last node of the tree
    n_children: int = MAX_ROWS  # next tokens of a node that are looked at, the likeliest; 1: a chain

    def __post_init__(self) -> None:
        check(1 <= self.width <= 256, "width", self.width, "between 1 and 256")
        check(0 <= self.focus <= 1, "focus", self.focus, "between 0 and 1")
        check(self.reach >= 1, "reach", self.reach, "at least 1")
        check(self.n_children >= 1, "n-children", self.n_children, "at least 1")
        check(0 <= self.cutoff < 1, "cutoff", self.cutoff, "at least 0 and below 1")
