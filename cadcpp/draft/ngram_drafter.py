"""A drafter without a model: text that repeats itself drafts for itself."""

from collections.abc import Sequence

import numpy as np

from cadcpp.draft.base import DraftedTree, WithoutModel
from cadcpp.draft.best_first import BestFirstGrowth
from cadcpp.ngram.predictor import NgramPredictor
from cadcpp.tree.limits import DraftBudget, GrowthOptions


class NgramDrafter(WithoutModel):
    """Prompt lookup decoding (Saxena 2023) as a tree: every place where the last words stood before has its branch."""

    def __init__(self, predictor: NgramPredictor, never: Sequence[int] = ()) -> None:
        self._predictor, self._never = predictor, np.array(never, np.int32)

    def grow(self, ids: Sequence[int], budget: DraftBudget) -> DraftedTree:
        self._predictor.read(ids)
        growth, n_evaluated = BestFirstGrowth(ids[-1], budget, GrowthOptions(), self._never), 0
        rows = growth.frontier() if budget.max_depth > 0 else []
        while rows:
            for row, guess in zip(rows, self._predictor.after([growth.path(row) for row in rows]), strict=True):
                growth.learn(row, guess.tokens, guess.p)
            n_evaluated += len(rows)
            rows = growth.frontier()
        return DraftedTree(tree=growth.tree(), n_evaluated=n_evaluated)
