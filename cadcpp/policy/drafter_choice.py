"""Whether to draft with a model or from the text alone, by what each promises."""

from dataclasses import dataclass, field

from cadcpp.policy.base import Disk, Observation
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.pass_cost import PassCost
from cadcpp.tree.limits import TreeConfig
from cadcpp.tree.token_tree import TokenTree

_EVERY = 4  # rounds after which what the text alone would bring is looked at


@dataclass(slots=True)
class DrafterChoice:
    """A cost model for each of two drafters, of which one is used; it may change its mind each round.

    What the other one costs is learned by using it. That drafting from the text costs next to nothing lets it be
    tried beside the model, by what its trees promise; the model gets another chance now and then, as after plain
    decoding.
    """

    model: CostModel = field(default_factory=CostModel)
    text: CostModel = field(default_factory=CostModel)
    from_text: bool = False
    n_rounds: int = 0

    def __post_init__(self) -> None:
        self.text.verify, self.text.trials = self.model.verify, 0  # a pass takes as long, whoever drafted

    @property
    def now(self) -> CostModel:
        return self.text if self.from_text else self.model

    @property
    def verify(self) -> PassCost:
        """What passes took, whoever drafted."""
        return self.model.verify

    @property
    def wants_to_know(self) -> bool:
        """Whether to say, by `expect`, what a tree from the text would be."""
        return not self.from_text and self.n_rounds % _EVERY == 1

    def expect(self, tree: TokenTree) -> None:
        """A tree from the text that is not used."""
        self.text.expect(tree.logp, tree.depth)

    def look(self, disk: Disk) -> None:
        self.model.look(disk)
        self.text.look(disk)

    def pays(self) -> bool:
        pays = self.model.pays(self.text.rate())
        self.from_text = not pays and not self.model.must_see_plain
        return pays or (self.from_text and self.text.pays())

    def limits(self, config: TreeConfig, n_uncached: int) -> TreeConfig:
        return self.now.limits(config, n_uncached)

    def n_ahead(self, config: TreeConfig) -> int:
        return 0 if self.from_text else self.model.n_ahead(config)

    def observe(self, seen: Observation) -> None:
        self.n_rounds += 1
        self.now.observe(seen)
        (self.model if self.from_text else self.text).miss(seen)

    def describe(self) -> dict[str, float]:
        return {"from_text": float(self.from_text), **self.now.describe()}
