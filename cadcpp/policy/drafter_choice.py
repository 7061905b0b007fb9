"""Whether to draft with a model or from the text alone, by what each promises."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cadcpp.config import TreeConfig
from cadcpp.draft.model_drafter import Drafter
from cadcpp.policy.cost_model import CostModel, Disk, Observation
from cadcpp.tree.token_tree import TokenTree

_EVERY = 4  # rounds after which what the text alone would bring is looked at


@dataclass(slots=True)
class Choice:
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

    def limits(self, config: TreeConfig, n_tail: int) -> TreeConfig:
        return self.now.limits(config, n_tail)

    def n_ahead(self, config: TreeConfig) -> int:
        return 0 if self.from_text else self.model.n_ahead(config)

    def observe(self, seen: Observation) -> None:
        self.n_rounds += 1
        self.now.observe(seen)
        (self.model if self.from_text else self.text).miss(seen)

    def describe(self) -> dict[str, float]:
        return {"from_text": float(self.from_text), **self.now.describe()}


class Switch:
    """Two drafters as one: a model, and one without."""

    def __init__(self, choice: Choice, model: Drafter, text: Drafter) -> None:
        self._choice, self._model, self._text = choice, model, text
        self._now = model

    @property
    def n_evaluated(self) -> int:
        return self._now.n_evaluated

    @property
    def n_kept(self) -> int:
        return self._now.n_kept

    @property
    def n_decodes(self) -> int:
        return self._model.n_decodes

    def read(self, ids: Sequence[int]) -> None:
        if not self._choice.from_text:
            self._model.read(ids)

    def grow(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> TokenTree:
        if self._choice.wants_to_know:
            self._choice.expect(self._text.grow(ids, config, max_depth))
        self._now = self._text if self._choice.from_text else self._model
        return self._now.grow(ids, config, max_depth)

    def ahead(self, may_go_on: Callable[[], bool], n: int) -> None:
        self._now.ahead(may_go_on, n)

    def settle(self) -> None:
        self._model.settle()

    def stop(self) -> None:
        self._model.stop()

    def resume(self) -> None:
        self._model.resume()

    def close(self) -> None:
        self._model.close()
