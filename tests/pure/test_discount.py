"""Good-Turing discounts: the formula step by step, and what happens where it does not work."""

from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cadcpp.ngram.discount import RELIABLE, discounts


def counts_of(**n: int) -> NDArray[np.int64]:
    """Counts of which ``n1`` are 1, ``n2`` are 2 and so on."""
    return np.repeat([int(name[1:]) for name in n], list(n.values()))


def factors(counts: NDArray[np.int64]) -> list[float]:
    """The factor of each different count, by rising count."""
    _, first = np.unique(counts, return_index=True)
    return [float(factor) for factor in discounts(counts)[first]]


def test_good_turing_by_hand() -> None:
    counts = counts_of(n1=100, n2=30, n3=15, n4=9, n5=6, n6=4, n7=2)
    cut = F(6 * 4, 100)  # (k+1) n_6 / n_1
    ratios = [  # r*/r = (r+1) n_{r+1} / n_r / r
        F(2 * 30, 100) / 1,
        F(3 * 15, 30) / 2,
        F(4 * 9, 15) / 3,
        F(5 * 6, 9) / 4,
        F(6 * 4, 6) / 5,
    ]
    expected = [(ratio - cut) / (1 - cut) for ratio in ratios]
    assert expected[:2] == [F(9, 19), F(51, 76)]
    assert factors(counts) == pytest.approx([*map(float, expected), 1, 1])


def test_good_turing_takes_away_as_much_as_was_seen_once() -> None:
    counts = counts_of(n1=100, n2=30, n3=15, n4=9, n5=6, n6=4, n9=3)
    assert ((1 - discounts(counts)) * counts).sum() == pytest.approx(100)


@pytest.mark.parametrize(
    ("counts", "off"),
    [
        pytest.param(counts_of(n1=4, n2=2, n3=1, n6=1), F(4, 4 + 2 * 2), id="n_4 is 0"),
        pytest.param(counts_of(n1=3, n2=1, n3=1), F(3, 3 + 2 * 1), id="n_6 is 0"),
        pytest.param(counts_of(n1=6, n2=5, n3=4, n4=3, n5=2, n6=1), F(6, 6 + 2 * 5), id="n_6 is a sixth of n_1"),
        pytest.param(counts_of(n1=9, n2=9, n3=9, n4=9, n5=9, n6=1), F(9, 9 + 2 * 9), id="n_2 is not below n_1"),
        pytest.param(counts_of(n2=3, n3=2), F(1, 2), id="nothing was seen once"),
        pytest.param(counts_of(n1=5), F(1, 2), id="all was seen once"),
    ],
)
def test_where_good_turing_fails_a_constant_is_taken_off(counts: NDArray[np.int64], off: F) -> None:
    expected = [float(1 - off / r) if r <= RELIABLE else 1.0 for r in np.unique(counts).tolist()]
    assert factors(counts) == pytest.approx(expected)


@given(st.lists(st.integers(1, 9), max_size=60))
def test_small_counts_shrink_and_large_ones_do_not(counts: list[int]) -> None:
    seen = np.array(counts, np.int64)
    d = discounts(seen)
    assert np.all(d[seen > RELIABLE] == 1)
    assert np.all((d[seen <= RELIABLE] > 0) & (d[seen <= RELIABLE] < 1))
