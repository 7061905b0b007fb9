"""Whether to draft with a model or from the text alone, by what each promises, and whether to keep the model at all."""

from dataclasses import dataclass, field, replace
from typing import Any

from cadcpp.policy.base import Observation, RoundState
from cadcpp.policy.cost_model import MOST_PLAIN, CostModel
from cadcpp.policy.pass_cost import PassCost
from cadcpp.tree.limits import DraftBudget

_EVERY = 4  # rounds after which what the text alone would bring is looked at
_VAIN = 4  # rounds in a row that find the model not worth its memory, before it is tried again and after that
_WORTH = 1.07  # by which it must seem better than that: the best of many sizes of trees promises more than it brings


@dataclass(slots=True)
class DrafterChoice:
    """A cost model for each of two drafters, of which one is used; it may change its mind each round.

    What the other one costs is learned by using it. That drafting from the text costs next to nothing lets it be
    tried beside the model, by what its trees promise; the model gets another chance now and then, as after plain
    decoding. Once it is given up for its memory, that chance comes with a later session.
    """

    verify: PassCost = field(default_factory=PassCost)  # a pass takes as long, whoever drafted
    model: CostModel = field(init=False)
    text: CostModel = field(init=False)
    from_text: bool = False
    given_up: bool = False  # the model; something else has its memory
    n_vain: int = 0  # rounds in a row in which its memory was worth more than it
    n_waiting: int = 0  # ... in which passes waited for experts more than they computed
    n_rounds: int = 0
    n_behind: int = 0  # tokens of the text that the model had not read in the last round

    def __post_init__(self) -> None:
        self.model, self.text = CostModel(verify=self.verify), CostModel(verify=self.verify, trials=0)

    @property
    def now(self) -> CostModel:
        return self.text if self.from_text else self.model

    def uses_model(self, n_behind: int) -> bool:
        return not self.given_up and self.model.uses_model(n_behind, self.text.rate())

    @property
    def wants_model(self) -> bool:
        """Whether a session should begin with the model: it was not given up, or so long ago that it is tried again."""
        return not self.given_up or self.model.plain_rounds >= self.model.patience

    def plan(self, state: RoundState) -> DraftBudget | None:
        self.text.look(state.disk)
        self.n_behind = state.n_behind
        budget = None if self.given_up else self.model.plan(state, self.text.rate())
        self.from_text = budget is None and (self.given_up or not self.model.must_see_plain)
        if self.from_text:
            budget = self.text.plan(replace(state, n_behind=0))
            return budget and replace(budget, from_text=True, n_ahead=0)
        return budget and replace(budget, compare=self.n_rounds % _EVERY == 1)

    def observe(self, seen: Observation) -> None:
        self.n_rounds += 1
        if seen.alternative is not None:
            self.text.expect(seen.alternative.logp, seen.alternative.depth)
        self.now.observe(seen)
        (self.model if self.from_text else self.text).miss(seen)

    def judge(self, spared: float) -> bool:
        """After a round: whether the model is given up, since its memory is worth more to the verifier's experts.

        ``spared`` is the share of their reads that they would not need with it. For some rounds the model must not pay
        beside what plain decoding, or the text alone, would then bring, and after another trial no more than before:
        to load it again costs more than these rounds do. There is no trial where it would have to read a long text for
        it, nor where passes mostly wait for experts: a draft saves computing and no reading, and lost wherever that was
        measured.
        """
        self.n_waiting = self.n_waiting + 1 if self._mostly_waits else 0
        if self.n_waiting == _VAIN and not self.given_up:
            self.go_on(with_model=False)
        if self.given_up or self.model.is_on_trial:
            return self.given_up
        disk = self.text.disk
        freed = replace(disk, routed_s=(1 - spared) * disk.routed_s)
        is_vain = spared > 0 and not self.model.pays(_WORTH * self.text.best_rate(freed))
        self.n_vain = self.n_vain + 1 if is_vain else 0
        if self.n_vain == _VAIN and self.model.may_catch_up(self.n_behind):
            self.model.try_again()
        if self.n_vain == 2 * _VAIN:
            self.go_on(with_model=False)
        return self.given_up

    @property
    def _mostly_waits(self) -> bool:
        return float(self.text.disk.routed_s[1]) > float(self.verify.estimate()[1]) > 0

    def go_on(self, *, with_model: bool) -> None:
        """From now on there is a model, which has another chance, or there is none, for a long time."""
        self.given_up = not with_model
        if self.given_up:
            self.n_vain, self.model.patience = 0, MOST_PLAIN

    def learned(self) -> dict[str, Any]:
        """What another session may start from, in terms of JSON, beside what its cost models learned."""
        return {"given_up": self.given_up, "n_vain": self.n_vain}

    def recall(self, learned: dict[str, Any]) -> None:
        """Start from what was `learned` before. Raises KeyError or TypeError for nonsense."""
        self.given_up, self.n_vain = bool(learned["given_up"]), int(learned["n_vain"])

    def describe(self) -> dict[str, float]:
        return {"from_text": float(self.from_text), "given_up": float(self.given_up), **self.now.describe()}
