"""The noise of coupled draws: known answers, its distribution, and that draws with it follow the probabilities."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.sampling.gumbel import gumbel, log, rough_gumbel, split_mix, uniform
from tests.support.chi2 import p_value

P = np.array([0.5, 0.2, 0.1, 0.08, 0.06, 0.04, 0.02])
TOKENS = np.arange(len(P))
N = 10_000


def test_the_generator_is_split_mix_64() -> None:
    """Published outputs for the seed 1234567."""
    assert split_mix(1234567, np.arange(5)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_the_noise_is_the_same_bit_for_bit_on_every_machine() -> None:
    expected = [
        "0x1.b927d1db15504p-2",
        "-0x1.483440cc14d0dp-3",
        "-0x1.4cbfb3dcb81ebp-2",
        "0x1.a9c9144039c0ap-1",
    ]
    assert [float(g).hex() for g in gumbel(2**32 - 1, 100_000, np.array([0, 1, 49_151, 262_143]))] == expected


def test_the_logarithm_is_right_to_its_last_bits() -> None:
    rng = np.random.default_rng(0)
    numbers: list[NDArray[np.float64]] = [
        rng.random(10_000),
        1 - rng.random(10_000) * 1e-9,
        40 * rng.random(10_000),
        np.exp2(np.arange(-53.0, 6)),
    ]
    for x in numbers:
        assert log(x) == pytest.approx(np.log(x), rel=1e-15, abs=0)


def test_what_drafters_look_up_is_the_same_noise() -> None:
    assert rough_gumbel(1, 2, TOKENS) == pytest.approx(gumbel(1, 2, TOKENS), rel=1e-12)


def test_the_noise_of_a_token_does_not_depend_on_which_others_are_asked_for() -> None:
    assert gumbel(3, 4, np.array([6]))[0] == gumbel(3, 4, np.arange(10))[6]


@pytest.mark.parametrize("axis", ["seed", "position", "token"])
def test_numbers_are_uniform_and_neighbours_independent(axis: str) -> None:
    numbers: dict[str, Callable[[], NDArray[np.float64]]] = {
        "seed": lambda: np.array([uniform(i, 5, np.array([6]))[0] for i in range(N)]),
        "position": lambda: np.array([uniform(5, i, np.array([6]))[0] for i in range(N)]),
        "token": lambda: uniform(5, 6, np.arange(N)),
    }
    u = numbers[axis]()
    assert 0 < u.min() and u.max() < 1
    cells = (u * 8).astype(int)
    pairs = np.bincount(cells[:-1] * 8 + cells[1:], minlength=64)
    assert p_value([(pairs, np.full(64, 1 / 64))]) > 0.001


def draws(noise: NDArray[np.float64]) -> NDArray[np.int64]:
    """How often each token is drawn, with noise [n, tokens]."""
    return np.bincount(np.argmax(np.log(P) + noise, axis=1), minlength=len(P))


@pytest.mark.parametrize("axis", ["seed", "position"])
def test_draws_follow_the_probabilities(axis: str) -> None:
    at = [(i, 7) if axis == "seed" else (7, i) for i in range(N)]
    assert p_value([(draws(np.array([gumbel(*where, TOKENS) for where in at])), P)]) > 0.001


@pytest.mark.parametrize("wrong", ["uniform", "colder"])
def test_control_draws_with_other_noise_are_told_apart(wrong: str) -> None:
    noise = np.array([uniform(7, i, TOKENS) if wrong == "uniform" else 0.9 * gumbel(7, i, TOKENS) for i in range(N)])
    assert p_value([(draws(noise), P)]) < 1e-6


def test_draws_at_neighbouring_positions_are_independent() -> None:
    tokens = np.argmax(np.log(P) + np.array([gumbel(7, i, TOKENS) for i in range(N)]), axis=1)
    pairs = np.bincount(tokens[:-1] * len(P) + tokens[1:], minlength=len(P) ** 2)
    assert p_value([(pairs, np.outer(P, P).ravel())]) > 0.001
