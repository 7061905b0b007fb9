"""Best-first growth against brute force on a Markov chain that stands in for the draft."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cadcpp.draft.best_first import BestFirstGrowth
from cadcpp.errors import ModelError
from cadcpp.tree.limits import GrowthOptions
from cadcpp.tree.prices import Prices
from cadcpp.tree.token_tree import TokenTree
from tests.support.growing import Growing, budget
from tests.support.trees import paths

Path = tuple[int, ...]
SEED, ROWS, DEPTH = st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 9)


@dataclass
class Grown:
    tree: TokenTree
    n_decodes: int
    done: bool  # nothing was left to expand, so the limit on expansions did not bite


def markov(seed: int, n_vocab: int = 7) -> NDArray[np.float32]:
    """Logits of the next token after each token; some rows are sure of themselves, others are not."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n_vocab, n_vocab)) * rng.uniform(0.5, 5, (n_vocab, 1))).astype(np.float32)


def grow(logits: NDArray[np.float32], config: Growing, max_depth: int, never: tuple[int, ...] = ()) -> Grown:
    growth, n_decodes, n_expanded = (
        BestFirstGrowth(0, config.budget(max_depth), config.options, np.array(never, np.int32)),
        0,
        0,
    )
    rows = [0]
    while rows:
        growth.expand(rows, logits[[growth.position(row)[0] for row in rows]])
        n_decodes, n_expanded = n_decodes + 1, n_expanded + len(rows)
        rows = growth.frontier()
    return Grown(growth.tree(), n_decodes, n_expanded < config.max_size)


def finish(growth: BestFirstGrowth, logits: NDArray[np.float32], rows: list[int]) -> list[int]:
    """Expand until nothing is left to; returns the nodes that were."""
    done: list[int] = []
    while rows:
        growth.expand(rows, logits[[growth.position(row)[0] for row in rows]])
        done += rows
        rows = growth.frontier()
    return done


def brute_force(
    logits: NDArray[np.float32], config: Growing, max_depth: int, never: tuple[int, ...] = (), root: int = 0
) -> list[float]:
    """Log probabilities of the likeliest nodes of all, falling."""
    exact = logits.astype(np.float64)
    logp = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
    found: list[float] = []

    def visit(token: int, total: float, depth: int) -> None:
        found.append(total)
        if depth < max_depth:
            for t in set(range(len(logp))) - set(never):
                if total + logp[token, t] >= floor:
                    visit(t, total + logp[token, t], depth + 1)

    # 1e-4 keeps the enumeration small; the tests draw no trees that reach below it.
    floor = math.log(max(config.cutoff, 1e-4))
    visit(root, 0.0, 0)
    return sorted(found, reverse=True)[: config.max_size]


@given(SEED, ROWS, DEPTH)
def test_one_node_at_a_time_finds_the_likeliest_tree(seed: int, rows: int, max_depth: int) -> None:
    logits, config = markov(seed), Growing(max_size=rows, width=1, cutoff=0.001, reach=1.0)
    grown = grow(logits, config, max_depth)
    expected = brute_force(logits, config, max_depth)
    np.testing.assert_allclose(sorted(grown.tree.logp, reverse=True), expected, atol=1e-4)
    assert len(set(paths(grown.tree))) == len(grown.tree)


@given(SEED, ROWS, DEPTH, st.integers(2, 8), st.sampled_from([0.0, 0.25, 1.0]))
def test_width_and_focus_only_save_decodes(seed: int, rows: int, max_depth: int, width: int, focus: float) -> None:
    logits = markov(seed)
    narrow = grow(logits, Growing(max_size=rows, width=1, reach=1.0), max_depth)
    wide = grow(logits, Growing(max_size=rows, width=width, focus=focus, reach=1.0), max_depth)
    assert wide.n_decodes <= narrow.n_decodes
    if wide.done:
        np.testing.assert_array_equal(np.sort(wide.tree.logp), np.sort(narrow.tree.logp))
    else:  # expansions were spent on nodes that fell out again
        assert np.exp(wide.tree.logp).sum() < np.exp(narrow.tree.logp).sum() * 1.0001


def test_the_default_width_loses_next_to_nothing() -> None:
    ratios = []
    for seed in range(50):
        wide, narrow = (
            grow(markov(seed), config, 9) for config in (Growing(max_size=40), Growing(max_size=40, width=1))
        )
        ratios.append(np.exp(wide.tree.logp).sum() / np.exp(narrow.tree.logp).sum())
    assert min(ratios) > 0.98 and np.mean(ratios) > 0.999


def test_a_wide_frontier_takes_fewer_decodes() -> None:
    n_decodes = [grow(markov(1), Growing(max_size=40, width=width, focus=0.25), 9).n_decodes for width in (1, 4, 8)]
    assert n_decodes[0] > n_decodes[1] > n_decodes[2]


def test_focus_1_goes_one_by_one_unless_nodes_tie() -> None:
    one = grow(markov(1), Growing(max_size=40, width=1), 9)
    assert grow(markov(1), Growing(max_size=40, width=8, focus=1.0), 9).n_decodes == one.n_decodes


@given(SEED, st.sampled_from([0.5, 0.1, 0.01]))
def test_no_node_is_below_the_cutoff(seed: int, cutoff: float) -> None:
    grown = grow(markov(seed), Growing(max_size=64, cutoff=cutoff), 20)
    assert np.all(grown.tree.logp >= math.log(cutoff) - 1e-6)


@given(SEED, DEPTH)
def test_no_node_is_too_deep(seed: int, max_depth: int) -> None:
    assert grow(markov(seed), Growing(max_size=64, cutoff=0.0), max_depth).tree.depth.max() <= max_depth


@given(SEED, ROWS)
def test_a_token_that_is_never_drafted(seed: int, rows: int) -> None:
    logits, config = markov(seed), Growing(max_size=rows, width=1, reach=1.0)
    grown = grow(logits, config, 6, never=(2, 3))
    assert not {2, 3} & set(grown.tree.token.tolist())
    expected = brute_force(logits, config, 6, never=(2, 3))
    np.testing.assert_allclose(sorted(grown.tree.logp, reverse=True), expected, atol=1e-4)


def test_a_sure_draft_makes_a_chain() -> None:
    logits = np.full((5, 5), -20, np.float32)
    logits[np.arange(5), (np.arange(5) + 1) % 5] = 20
    grown = grow(logits, Growing(max_size=9), 20)
    assert grown.tree.token.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_a_tree_has_no_more_rows_than_asked_for(rows: int) -> None:
    flat = np.zeros((50, 50), np.float32)
    assert len(grow(flat, Growing(max_size=rows, cutoff=0.0), 3).tree) == rows


@given(SEED, st.floats(1.0, 8.0))
def test_reach_saves_evaluations_and_loses_only_unlikely_rows(seed: int, reach: float) -> None:
    logits = markov(seed)
    whole = grow(logits, Growing(max_size=40, width=1, reach=1.0), 9)
    saved = grow(logits, Growing(max_size=40, width=1, reach=reach), 9)
    assert saved.n_decodes <= whole.n_decodes
    # What is lost hangs under nodes less likely than reach times the last row.
    likely = whole.tree.logp >= whole.tree.logp.min() + math.log(reach)
    assert np.all(np.isin(whole.tree.logp[likely], saved.tree.logp))


@given(SEED, st.integers(1, 40), st.floats(0.01, 0.9))
def test_rows_beyond_the_free_ones_are_worth_their_price(seed: int, free_rows: int, price: float) -> None:
    prices = Prices(rows=price * np.maximum(np.arange(40) - free_rows + 1, 0))
    tree = grow(markov(seed), Growing(max_size=40, prices=prices), 9).tree
    beyond = np.sort(tree.logp)[::-1][free_rows:]
    assert np.all(beyond >= math.log(price) - 1e-5)


def test_costs_that_come_in_steps_are_filled_up() -> None:
    """Where 8 rows cost no more than 5, a tree has 8 rows and not 5."""
    prices = Prices(rows=0.35 * np.ceil(np.arange(1, 33) / 4) - 0.35)
    sizes = {len(grow(markov(seed), Growing(max_size=32, prices=prices), 9).tree) for seed in range(40)}
    assert len(sizes) > 2 and all(size % 4 == 0 for size in sizes)


@given(SEED, st.lists(st.floats(0.0, 0.3), min_size=39, max_size=39))
def test_of_the_nodes_found_the_best_number_is_taken(seed: int, steps: list[float]) -> None:
    prices = Prices(rows=np.concatenate([[0.0], np.cumsum(steps)]))
    logits = markov(seed)
    gains = np.exp(np.sort(grow(logits, Growing(max_size=40, prices=prices), 9).tree.logp)[::-1])
    value = gains[1:].sum() - prices.rows[len(gains) - 1]
    for n in range(1, len(gains)):
        assert value >= gains[1:n].sum() - prices.rows[n - 1] - 1e-5


def test_trust_by_depth_makes_trees_shallower() -> None:
    doubt = Prices(rows=0.05 * np.arange(40.0), acceptance=np.array([1.0, 1.0, 0.2]))
    for seed in range(20):
        free, doubted = (
            grow(markov(seed), Growing(max_size=40, prices=p), 9).tree
            for p in (Prices(rows=0.05 * np.arange(40.0)), doubt)
        )
        assert (doubted.depth > 1).sum() <= (free.depth > 1).sum()


@given(SEED, st.integers(0, 6))
def test_rows_of_dear_tokens_are_taken_later_and_those_of_cheap_ones_earlier(seed: int, token: int) -> None:
    """By what their experts cost, as far as they do not become text anyway; parents come first all the same."""
    rows, logits = 0.08 * np.arange(40.0), markov(seed)

    def n_of_it(factor: float) -> int:
        prices = Prices(rows=rows, experts=0.07, row_reads=lambda tokens: np.where(tokens == token, factor, 1.0))
        tree = grow(logits, Growing(max_size=40, prices=prices), 9).tree
        assert (tree.parent[1:] < np.arange(1, len(tree))).all()
        return int((tree.token[1:] == token).sum())

    assert n_of_it(4.0) <= n_of_it(1.0) <= n_of_it(0.0)


def test_what_a_token_costs_can_decide() -> None:
    def sizes(factor: float) -> int:
        rows = 0.08 * np.arange(40.0)
        prices = Prices(rows=rows, experts=0.07, row_reads=lambda tokens: np.full(len(tokens), factor))
        return sum(len(grow(markov(seed), Growing(max_size=40, prices=prices), 9).tree) for seed in range(20))

    assert sizes(3.0) < sizes(1.0) < sizes(0.0)


def test_nodes_that_are_not_worth_their_price_are_not_evaluated() -> None:
    logits = markov(1)
    free, dear, dearer = (
        grow(logits, Growing(max_size=40, prices=Prices(free_nodes=0, node=price)), 9) for price in (0.0, 0.15, 0.75)
    )
    assert free.n_decodes > dear.n_decodes > dearer.n_decodes == 1  # the root, always


@given(SEED, st.integers(0, 5))
def test_growth_goes_on_below_a_node(seed: int, choice: int) -> None:
    """Going on from a node gives the tree that growing anew from its token gives."""
    logits, config, never = markov(seed), Growing(max_size=24, width=1, reach=1.0), np.array([], np.int32)
    growth = BestFirstGrowth(0, config.budget(9), config.options, never)
    evaluated = finish(growth, logits, [0])
    row = evaluated[min(choice, len(evaluated) - 1)]
    below, rank = growth.below(row, config.budget(9))
    assert [growth.position(old)[0] for old in rank] == [below.position(new)[0] for new in rank.values()]
    finish(below, logits, below.frontier())
    expected = brute_force(logits, config, 9, root=growth.position(row)[0])
    np.testing.assert_allclose(sorted(below.tree().logp, reverse=True), expected, atol=1e-4)


def test_going_beyond_evaluates_what_may_follow_the_tree() -> None:
    logits = markov(3)
    growth = BestFirstGrowth(0, budget(8, 9), GrowthOptions(), np.array([], np.int32))
    finish(growth, logits, [0])
    growth.go_beyond(10)
    assert (
        8 <= len(finish(growth, logits, growth.frontier())) <= 13
    )  # a frontier may exceed the limit by less than its width


@pytest.mark.parametrize("logit", [np.nan, np.inf])
def test_a_draft_that_computes_no_numbers_is_named(logit: float) -> None:
    growth = BestFirstGrowth(0, budget(64, 8), GrowthOptions(), np.array([], np.int32))
    with pytest.raises(ModelError, match="the draft computes what is no number"):
        growth.expand([0], np.array([[0.5, logit, 1.0]], np.float32))
