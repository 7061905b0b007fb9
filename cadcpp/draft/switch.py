"""Two drafters as one, of which a round's budget names one: a draft model, and the text alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from cadcpp.draft.base import DraftedTree, Drafter
from cadcpp.tree.limits import DraftBudget


class Switch:
    """Drafts with a model, or without where the budget says so."""

    def __init__(self, model: Drafter, text: Drafter) -> None:
        self._model, self._text = model, text
        self._now = model
        self._n_before = 0  # decodes of a model that is gone

    @property
    def n_decodes(self) -> int:
        return self._n_before + self._model.n_decodes

    def behind(self, ids: Sequence[int]) -> int:
        return self._model.behind(ids)

    def read(self, ids: Sequence[int], n_behind: int) -> int:
        return self._model.read(ids, n_behind)

    def grow(self, ids: Sequence[int], budget: DraftBudget) -> DraftedTree:
        alternative = self._text.grow(ids, budget).tree if budget.compare else None
        self._now = self._text if budget.from_text else self._model
        return replace(self._now.grow(ids, budget), alternative=alternative)

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

    def drop_model(self) -> None:
        """Free the model's context; from now on only the text drafts."""
        self._model.close()
        self._n_before, self._model, self._now = self.n_decodes, self._text, self._text
