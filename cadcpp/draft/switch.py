"""Two drafters as one, for a policy that chooses."""

from collections.abc import Callable, Sequence

from cadcpp.draft.base import Drafter
from cadcpp.policy.drafter_choice import DrafterChoice
from cadcpp.tree.limits import TreeConfig
from cadcpp.tree.token_tree import TokenTree


class Switch:
    """Two drafters as one: a model, and one without."""

    def __init__(self, choice: DrafterChoice, model: Drafter, text: Drafter) -> None:
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

    def rollback(self) -> None:
        self._model.rollback()

    def stop(self) -> None:
        self._model.stop()

    def resume(self) -> None:
        self._model.resume()

    def close(self) -> None:
        self._model.close()
