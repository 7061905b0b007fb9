"""A drafter without a model: text that repeats itself drafts for itself."""

from collections.abc import Sequence

import numpy as np

from cadcpp.draft.base import WithoutModel
from cadcpp.draft.best_first import BestFirstGrowth
from cadcpp.ngram.predictor import NgramPredictor
from cadcpp.tree.limits import TreeConfig
from cadcpp.tree.token_tree import TokenTree


class NgramDrafter(WithoutModel):
    """Prompt lookup decoding (Saxena 2023) as a tree: every place where the last words stood before has its branch."""

    def __init__(self, guesser: NgramPredictor, never: Sequence[int] = ()) -> None:
        self._guesser, self._never = guesser, np.array(never, np.int32)

    def grow(self, ids: Sequence[int], config: TreeConfig, max_depth: int) -> TokenTree:
        self._guesser.read(ids)
        growth, self.n_evaluated = BestFirstGrowth(ids[-1], config, max_depth, self._never), 0
        rows = growth.frontier() if max_depth > 0 else []
        while rows:
            for row, guess in zip(rows, self._guesser.after([growth.path(row) for row in rows]), strict=True):
                growth.learn(row, guess.tokens, guess.p)
            self.n_evaluated += len(rows)
            rows = growth.frontier()
        return growth.tree()
