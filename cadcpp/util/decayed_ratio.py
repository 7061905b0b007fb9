"""Ratios learned from what happens, one observation at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class DecayedRatio:
    """How often something was so, place by place of an array; what is old fades as new observations come."""

    hits: NDArray[np.float64]
    seen: NDArray[np.float64]  # what the first shares count for, at the start
    forget: float  # weight of the past, per observation

    def at(self, place: int | tuple[int, int]) -> float:
        """The share at one place."""
        return float(self.hits[place] / self.seen[place])

    def learn(self, place: int | tuple[int, int], share: float) -> None:
        """One observation: 1 if it was so, 0 if not, or a share of it."""
        self.hits[place] = self.forget * self.hits[place] + share
        self.seen[place] = self.forget * self.seen[place] + 1
