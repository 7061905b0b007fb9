"""The token tree against brute force on random trees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadcpp.tree.token_tree import TokenTree
from tests.support.trees import paths, random_rows, random_tree

SEED = st.integers(0, 2**32 - 1)
ROWS = st.integers(1, 60)


def likeliest_chain(tree: TokenTree) -> list[int]:
    """The greedy path down, found the slow way."""
    chain = [0]
    while below := [r for r in range(len(tree)) if tree.parent[r] == chain[-1]]:
        chain.append(max(below, key=lambda r: (tree.logp[r], -r)))
    return chain


def leaves_under(tree: TokenTree, row: int) -> set[int]:
    parents = set(tree.parent.tolist())
    return {r for r in range(len(tree)) if r not in parents and row in tree.ancestors(r)}


@given(SEED, ROWS)
def test_build_puts_the_likeliest_chain_first_and_the_rest_by_falling_probability(seed: int, n: int) -> None:
    tree = random_tree(np.random.default_rng(seed), n, 8)
    chain = likeliest_chain(tree)
    assert chain == list(range(len(chain)))
    rest = tree.logp[len(chain) :]
    assert np.all(rest[1:] <= rest[:-1])
    assert all(tree.parent[r] < r for r in range(n))


@given(SEED, ROWS)
def test_build_loses_and_invents_nothing(seed: int, n: int) -> None:
    token, parent, logp = random_rows(np.random.default_rng(seed), n, 8)

    def path(row: int) -> tuple[int, ...]:
        return (*path(parent[row]), token[row]) if row else ()

    tree = TokenTree.build(token, parent, logp)
    assert sorted(zip(paths(tree), tree.logp.tolist(), strict=True)) == sorted((path(r), logp[r]) for r in range(n))
    assert tree.depth.tolist() == [len(p) for p in paths(tree)]


@given(SEED, ROWS)
def test_siblings_come_in_order_of_falling_probability(seed: int, n: int) -> None:
    tree = random_tree(np.random.default_rng(seed), n, 8)
    for below in tree.children():
        assert below == sorted(below)
        assert np.all(np.diff(tree.logp[below]) <= 0)


@given(SEED, ROWS)
def test_spans_are_the_sets_of_leaves_under_each_row(seed: int, n: int) -> None:
    tree = random_tree(np.random.default_rng(seed), n, 8)
    leaves, (lo, hi) = tree.leaves(), tree.spans()
    assert len(set(leaves)) == len(leaves)
    for row in range(n):
        assert set(leaves[lo[row] : hi[row]]) == leaves_under(tree, row)


@given(SEED, ROWS)
def test_the_likeliest_chain_lies_on_sequence_0(seed: int, n: int) -> None:
    tree = random_tree(np.random.default_rng(seed), n, 8)
    assert tree.ancestors(tree.leaves()[0]) == likeliest_chain(tree)


@given(SEED, ROWS, st.integers(1, 70), st.none() | st.integers(0, 6))
def test_trim_keeps_the_likeliest_rows(seed: int, n: int, keep: int, max_depth: int | None) -> None:
    tree = random_tree(np.random.default_rng(seed), n, 8)
    trimmed = tree.trim(keep, max_depth)
    allowed = [r for r in range(n) if max_depth is None or tree.depth[r] <= max_depth]
    assert set(paths(trimmed)) <= set(paths(tree))
    assert np.all(trimmed.depth <= (n if max_depth is None else max_depth))
    assert sorted(trimmed.logp) == sorted(np.sort(tree.logp[allowed])[::-1][:keep])


def test_trim_never_takes_the_root() -> None:
    assert TokenTree.build([5, 6], [-1, 0], [0.0, -1.0]).trim(0).token.tolist() == [5]


def test_root_is_plain_decoding() -> None:
    tree = TokenTree.root(7)
    assert (len(tree), tree.leaves(), tree.children()) == (1, [0], [[]])
    assert [span.tolist() for span in tree.spans()] == [[0], [1]]


@pytest.mark.parametrize(
    ("row", "expected"), [pytest.param(0, [0], id="root"), pytest.param(2, [0, 1, 2], id="chain"), (3, [0, 3])]
)
def test_ancestors(row: int, expected: list[int]) -> None:
    tree = TokenTree.build([1, 2, 3, 4], [-1, 0, 1, 0], [0.0, -0.1, -0.2, -3.0])
    assert tree.ancestors(row) == expected


def test_draw_shows_depth_probability_and_what_was_accepted() -> None:
    tree = TokenTree.build([1, 2, 3, 4], [-1, 0, 0, 2], np.log([1.0, 0.25, 0.5, 0.5]).tolist())
    assert tree.draw(accepted=[0, 1]).splitlines() == ["* 1  1.000", "*   3  0.500", "      4  0.500", "    2  0.250"]
    assert "'<3>'" in tree.draw(lambda token: f"<{token}>")
