"""Limits of a tree's growth, in one place for tests."""

from dataclasses import dataclass, field

from cadcpp.tree.limits import DraftBudget, GrowthOptions
from cadcpp.tree.prices import Prices


@dataclass(frozen=True, kw_only=True)
class Growing:
    """A budget and the options that go with it, but for the depth."""

    max_size: int = 64
    width: int = 4
    focus: float = 0.25
    cutoff: float = 0.001
    reach: float = 2.0
    prices: Prices = field(default_factory=Prices)

    @property
    def options(self) -> GrowthOptions:
        return GrowthOptions(width=self.width, focus=self.focus, cutoff=self.cutoff, reach=self.reach)

    def budget(self, max_depth: int) -> DraftBudget:
        return DraftBudget(max_size=self.max_size, max_depth=max_depth, prices=self.prices)


def budget(max_size: int, max_depth: int) -> DraftBudget:
    return DraftBudget(max_size=max_size, max_depth=max_depth)
