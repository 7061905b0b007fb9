"""Whether to draft with a model or from the text alone, by what each promises."""

from dataclasses import dataclass, field, replace

from cadcpp.policy.base import Observation, RoundState
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.pass_cost import PassCost
from cadcpp.tree.limits import DraftBudget

_EVERY = 4  # rounds after which what the text alone would bring is looked at


@dataclass(slots=True)
class DrafterChoice:
    """A cost model for each of two drafters, of which one is used; it may change its mind each round.

    What the other one costs is learned by using it. That drafting from the text costs next to nothing lets it be
    tried beside the model, by what its trees promise; the model gets another chance now and then, as after plain
    decoding.
    """

    verify: PassCost = field(default_factory=PassCost)  # a pass takes as long, whoever drafted
    model: CostModel = field(init=False)
    text: CostModel = field(init=False)
    from_text: bool = False
    n_rounds: int = 0

    def __post_init__(self) -> None:
        self.model, self.text = CostModel(verify=self.verify), CostModel(verify=self.verify, trials=0)

    @property
    def now(self) -> CostModel:
        return self.text if self.from_text else self.model

    @property
    def uses_model(self) -> bool:
        return self.model.would_draft(self.text.rate())

    def plan(self, state: RoundState) -> DraftBudget | None:
        self.text.look(state.disk)
        budget = self.model.plan(state, self.text.rate())
        self.from_text = budget is None and not self.model.must_see_plain
        if self.from_text:
            budget = self.text.plan(state)
            return budget and replace(budget, from_text=True, n_ahead=0)
        return budget and replace(budget, compare=self.n_rounds % _EVERY == 1)

    def observe(self, seen: Observation) -> None:
        self.n_rounds += 1
        if seen.alternative is not None:
            self.text.expect(seen.alternative.logp, seen.alternative.depth)
        self.now.observe(seen)
        (self.model if self.from_text else self.text).miss(seen)

    def describe(self) -> dict[str, float]:
        return {"from_text": float(self.from_text), **self.now.describe()}
