"""Which chains of a tree a pass checks, where each is a sequence of its own."""

from dataclasses import replace

import numpy as np
import pytest

from cadcpp.tree.chains import Chains
from cadcpp.tree.granularity import Granularity
from cadcpp.tree.prices import MAX_ROWS, Prices
from cadcpp.tree.token_tree import TokenTree

# 1 - 2 - 3 are likeliest; 4 - 5 go off at the root, 6 after 1
PARENT = [-1, 0, 1, 2, 0, 4, 1]
P = [1.0, 0.6, 0.5, 0.4, 0.3, 0.25, 0.09]
TREE = TokenTree.build(range(10, 17), PARENT, np.log(P).tolist())


def tokens(tree: TokenTree) -> list[list[int]]:
    """Of every chain, below the root."""
    return sorted(tree.token[tree.ancestors(leaf)[1:]].tolist() for leaf in tree.leaves())


def at(row_price: float) -> Prices:
    return Prices(rows=np.array([row_price * n for n in range(MAX_ROWS)], np.float64))


def test_free_rows_take_as_many_chains_as_there_are_sequences() -> None:
    assert tokens(Chains(most=1).best(TREE, Prices(), 64)) == [[11, 12, 13]]
    assert tokens(Chains(most=2).best(TREE, Prices(), 64)) == [[11, 12, 13], [14, 15]]
    assert tokens(Chains(most=8).best(TREE, Prices(), 64)) == [[11, 12, 13], [11, 16], [14, 15]]


@pytest.mark.parametrize(("n_text", "row_price", "n"), [(1, 0.05, 2), (1, 0.2, 1), (4, 0.05, 2), (9, 0.06, 1)])
def test_a_chain_has_to_bring_what_its_rows_cost_with_the_text_before_it(n_text: int, row_price: float, n: int) -> None:
    assert len(Chains(most=8, n_text=n_text).best(TREE, at(row_price), 64).leaves()) == n


def test_rows_may_be_too_dear_for_any() -> None:
    assert len(Chains(most=8).best(TREE, at(0.7), 64)) == 1


def test_chains_of_tokens_whose_experts_are_in_memory_are_taken_first() -> None:
    prices = replace(at(0.2), experts=0.2, row_reads=lambda tokens: np.where(tokens >= 14, 0.0, 4.0))
    assert tokens(Chains(most=1).best(TREE, at(0.2), 64)) == [[11, 12, 13]]
    assert tokens(Chains(most=1).best(TREE, prices, 64)) == [[14, 15]]


@pytest.mark.parametrize("max_size", range(1, 16))
def test_the_rows_of_all_chains_count(max_size: int) -> None:
    chains = Chains(most=8, n_text=3)
    found = chains.best(TREE, Prices(), max_size)
    rows = chains.n_rows(len(found.leaves()), int(found.depth.max()))
    assert len(found) == 1 or (rows is not None and rows - 3 + 1 <= max_size)
    assert (len(found) > 1) == (max_size > 1)


def test_no_chain_is_longer_than_what_can_be_taken_back() -> None:
    assert tokens(Chains(most=2, n_doubtful=2).best(TREE, Prices(), 64)) == [[11, 12], [14, 15]]
    even = Chains(most=1, n_doubtful=2, granularity=Granularity(2, 2))
    assert tokens(even.best(TREE, Prices(), 64)) == [[11]]  # with a second token and the root there would be a fourth


@pytest.mark.parametrize("granularity", [Granularity(), Granularity(2), Granularity(2, 2, 16), Granularity(4, 4)])
@pytest.mark.parametrize("n_seq", range(1, 9))
def test_sequences_are_as_long_as_kernels_need_them_alone_and_together(granularity: Granularity, n_seq: int) -> None:
    for n in range(1, 20):
        length = granularity.length(n_seq, n)
        assert length >= n and granularity.whole(length) == length
        assert granularity.whole(n_seq * length) == n_seq * length


def test_one_sequence_has_as_many_rows_as_any_pass() -> None:
    granularity = Granularity(2, 2, 16)
    assert [granularity.length(1, n) for n in range(1, 40)] == [granularity.whole(n) for n in range(1, 40)]
