"""When carrying text along ends."""

import numpy as np
import pytest

from cadcpp.policy.carried_text import CarriedText
from cadcpp.tree.prices import SIZES, Floats


def rounds(round_s: Floats, n_tokens: int = 3, most: int = 300) -> int:
    """Rounds that bring some tokens each, up to the one that is plain."""
    carried, n_uncached = CarriedText(), 1
    for n in range(most):
        if carried.is_due(n_uncached, round_s):
            return n
        n_uncached += n_tokens
    return most


def test_rows_that_cost_nothing_are_carried_on() -> None:
    assert rounds(np.ones(SIZES)) == 300


def test_the_dearer_rows_are_the_sooner_it_ends() -> None:
    found = [rounds(1 + slope * np.arange(SIZES, dtype=float)) for slope in (0.01, 0.1, 1.0)]
    assert found == sorted(found, reverse=True) and 1 < found[-1] < found[0] < 30


def test_carrying_never_costs_more_than_twice_the_pass() -> None:
    round_s = 1 + 0.1 * np.arange(SIZES, dtype=float)
    carried, spent = CarriedText(), 0.0
    for n in range(1, 200, 3):
        spent += float(round_s[n] - round_s[1])
        if carried.is_due(n, round_s):
            break
    assert float(round_s[n]) <= spent <= 2 * float(round_s[n])


def test_it_begins_anew_when_the_text_was_kept() -> None:
    round_s = 1 + np.arange(SIZES, dtype=float)
    carried = CarriedText()
    assert [carried.is_due(n, round_s) for n in (3, 1, 3, 1, 3)] == [False] * 5


@pytest.mark.parametrize("n", [1, 5, 10 * SIZES])
def test_nothing_is_due_where_nothing_is_known(n: int) -> None:
    assert not CarriedText().is_due(n, np.zeros(SIZES))
