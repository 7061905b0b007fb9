"""LLMCad as published: when to stop drafting, and which branch grows. Numbers in, decisions out.

arXiv 2309.04255 (EdgeLLM is the journal version). Where they differ, or contradict themselves:

- The pacer (LLMCad eq. 1-2) extends the branch that is most short of its fair share M C_x / sum(C) - T_x. The paper
  writes a minimum, which would starve every branch but one; its text wants the shortfall's maximum, which is
  what happens here. EdgeLLM leaves out the sum, so that shares would not add up to the work done.
- The threshold's update (eq. 3) is the printed formula, the same in both; the prose tells of another one.
- No bounds are given for the threshold. Here it stays within [1e-6, 1]; 1 verifies after each token until one is right.
"""

from dataclasses import dataclass

from cadcpp.policy.base import Observation, RoundState
from cadcpp.policy.pass_cost import PassCost
from cadcpp.tree.limits import DraftBudget

_LEAST = 1e-6


@dataclass(slots=True)
class AdaptiveFallback:
    """Section 3.3: drafting goes on while the likeliest branch has a cumulative confidence of ``alpha`` or more."""

    alpha: float = 0.01

    @property
    def verify(self) -> PassCost:
        return PassCost()  # the published rule asks for no time

    def uses_model(self, n_behind: int) -> bool:
        return True

    def plan(self, state: RoundState) -> DraftBudget | None:
        """Nothing is drafted ahead: its branches are short, and grow anew from what was accepted."""
        return state.budget(min_confidence=self.alpha)

    def describe(self) -> dict[str, float]:
        return {"alpha": self.alpha}

    def observe(self, seen: Observation) -> None:
        """Eq. 3, on the branch that matched best: of its ``n_branch`` drafted tokens ``n_accepted`` were right."""
        if seen.n_branch == 0:
            return
        wrong = seen.n_branch - seen.n_accepted
        alpha = wrong / seen.n_branch if wrong else self.alpha * 0.5
        self.alpha = min(max(alpha, _LEAST), 1.0)
