"""Limits of one token tree."""

from dataclasses import dataclass, field, replace

from cadcpp.tree.prices import MAX_ROWS, Prices
from cadcpp.util.checks import check

_STREAMED_ROWS = 128  # more did not pay even at 100 MiB/s (bench.studies.fixed_sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeConfig:
    """Limits of one token tree."""

    max_size: int = 64  # rows of a verify pass, root included
    max_size_streamed: int = (
        0  # ... if more, where the cost model decides and so many rows would still wait for the disk
    )
    width: int = 4  # frontier nodes per draft decode, at most
    focus: float = 0.25  # a frontier node joins a decode if it is at least this likely, relative to the best
    cutoff: float = 0.001  # nodes with a smaller cumulative probability are not drafted
    reach: float = 2.0  # a node is evaluated if it is this much likelier than the last row of the tree
    temperature: float = 1.0  # of the draft's probabilities
    prices: Prices = field(default_factory=Prices)  # what rows and nodes cost; by default they are free
    alpha: float | None = None  # LLMCad's threshold; its growth takes the place of the best-first one

    def __post_init__(self) -> None:
        check(1 <= self.max_size <= MAX_ROWS, "max-tree-size", self.max_size, f"between 1 and {MAX_ROWS}")
        check(self.max_size_streamed <= MAX_ROWS, "max-tree-size", self.max_size_streamed, f"at most {MAX_ROWS}")
        check(1 <= self.width <= 256, "width", self.width, "between 1 and 256")
        check(0 <= self.focus <= 1, "focus", self.focus, "between 0 and 1")
        check(self.reach >= 1, "reach", self.reach, "at least 1")
        check(self.temperature > 0, "temperature", self.temperature, "above 0")
        check(0 <= self.cutoff < 1, "cutoff", self.cutoff, "at least 0 and below 1")

    def up_to(self, n: int) -> "TreeConfig":
        """The same with at most ``n`` rows."""
        return replace(self, max_size=min(self.max_size, n), max_size_streamed=min(self.max_size_streamed, n))


def limit_tree(max_size: int | None) -> TreeConfig:
    """Trees of at most ``max_size`` nodes; None: of as many as were found to pay."""
    return TreeConfig(max_size_streamed=_STREAMED_ROWS) if max_size is None else TreeConfig(max_size=max_size)
