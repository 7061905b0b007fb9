"""Random token trees."""

import numpy as np

from cadcpp.tree.token_tree import TokenTree


def random_rows(
    rng: np.random.Generator, n: int, n_vocab: int, root: int = 0
) -> tuple[list[int], list[int], list[float]]:
    """Token, parent and log probability of ``n`` rows, parents first; siblings differ, a child is no likelier."""
    token, parent, logp = [root], [-1], [0.0]
    taken: set[tuple[int, int]] = set()
    while len(token) < n:
        up, t = int(rng.integers(len(token))), int(rng.integers(n_vocab))
        if (up, t) in taken:
            continue
        taken.add((up, t))
        token.append(t)
        parent.append(up)
        # Steps of a quarter make ties, which the order must survive.
        logp.append(logp[up] - 0.25 * int(rng.integers(6)))
    return token, parent, logp


def random_tree(rng: np.random.Generator, n: int, n_vocab: int, root: int = 0) -> TokenTree:
    return TokenTree.build(*random_rows(rng, n, n_vocab, root))


def paths(tree: TokenTree) -> list[tuple[int, ...]]:
    """The tokens from below the root down to every row."""
    return [tuple(int(tree.token[r]) for r in tree.ancestors(row)[1:]) for row in range(len(tree))]
