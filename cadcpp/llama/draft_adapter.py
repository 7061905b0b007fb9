"""Upstream's draft models as a drafter."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cadcpp.draft.base import DraftedTree, WithoutModel
from cadcpp.tree.limits import DraftBudget
from cadcpp.tree.token_tree import TokenTree

_SURE = float(np.log(0.8))  # of each token; they do not say


class DraftAdapter(WithoutModel):
    """One chain, as a `llama_cpp.llama_speculative.LlamaDraftModel` guesses it."""

    def __init__(self, guess: Callable[..., Any]) -> None:
        self._guess = guess

    def grow(self, ids: Sequence[int], budget: DraftBudget) -> DraftedTree:
        n = min(budget.max_size - 1, budget.max_depth)
        chain = [int(token) for token in self._guess(np.array(ids, np.intc))[:n]] if n > 0 else []
        logp = [_SURE * depth for depth in range(len(chain) + 1)]
        return DraftedTree(tree=TokenTree.build([ids[-1], *chain], list(range(-1, len(chain))), logp))
