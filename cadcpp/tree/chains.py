"""Of a token tree the chains that a pass can check where each is a sequence of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cadcpp.tree.granularity import Granularity
from cadcpp.tree.prices import Prices
from cadcpp.tree.token_tree import TokenTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """What a pass may consist of: sequences of equal length, of which each begins with the same text."""

    most: int = 1
    n_text: int = 1  # tokens that every sequence begins with, the tree's root included
    n_doubtful: int | None = None  # rows at a sequence's end that can be taken back; None: as many as there are
    granularity: Granularity = Granularity()

    def length(self, n: int, depth: int) -> int:
        """Rows of each of ``n`` sequences that hold chains of up to ``depth`` tokens below the root."""
        return self.granularity.length(n, self.n_text + depth)

    def n_rows(self, n: int, depth: int) -> int | None:
        """Of the pass; None where not all of a chain could be taken back."""
        length = self.length(n, depth)
        fits = self.n_doubtful is None or length - self.n_text <= self.n_doubtful
        return n * length if fits else None

    def best(self, tree: TokenTree, prices: Prices, max_size: int) -> TokenTree:
        """The chains that bring most for what their rows cost, still as a tree.

        A pass may have as many rows as one for a tree of ``max_size`` nodes. Chains of each depth are taken in the
        order of what they add; a node that several have counts once, and costs a row in each.
        """
        gains, paths = prices.gains(tree.logp, tree.depth, prices.surcharge(tree.token)), _paths(tree)
        best, best_value = paths[:1, :1], 0.0
        for depth in range(1, paths.shape[1]):
            for chosen, value in self._chosen(gains.copy(), paths[:, : depth + 1]):
                size = self._size(len(chosen), depth)
                if size is None or size > min(max_size, len(prices.rows)):
                    break
                if value - prices.rows[size - 1] > best_value:
                    best, best_value = chosen, value - float(prices.rows[size - 1])
        return tree.part(np.unique(best).tolist())

    def _chosen(self, left: NDArray[np.float64], paths: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], float]]:
        """One path, then two, ...: each time the one that adds most of what is ``left``, and what all of them bring."""
        chosen, value = list[int](), 0.0
        while len(chosen) < self.most:
            adds = left[paths].sum(axis=1)
            chosen.append(int(np.argmax(adds)))
            if adds[chosen[-1]] <= 0:
                return
            value += float(adds[chosen[-1]])
            left[paths[chosen[-1]]] = 0.0
            yield paths[chosen], value

    def _size(self, n: int, depth: int) -> int | None:
        """Nodes of a tree that would take as many rows."""
        n_rows = self.n_rows(n, depth)
        return None if n_rows is None else n_rows - self.n_text + 1


def _paths(tree: TokenTree) -> NDArray[np.int64]:
    """Rows from the root down to every leaf, [n, depth + 1]; shorter ones end with the root, which adds nothing."""
    leaves = tree.leaves()
    paths = np.zeros((len(leaves), int(tree.depth.max()) + 1), np.int64)
    for i, leaf in enumerate(leaves):
        path = tree.ancestors(leaf)
        paths[i, : len(path)] = path
    return paths
