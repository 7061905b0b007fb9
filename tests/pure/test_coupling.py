"""What is worth drafting when the noise of the verifier's draws is known."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.sampling.coupling import Coupling
from cadcpp.sampling.gumbel import gumbel
from cadcpp.sampling.next_tokens import NextTokens, chances_of, softmax
from tests.support.chi2 import p_value

N_VOCAB, SURE = 1000, 1e-6  # a spread at which draft and verifier hardly differ
SETTINGS = [
    Coupling(seed=1, temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
    Coupling(seed=1, top_k=50),
    Coupling(seed=1, temperature=1.3),
    Coupling(seed=1, temperature=0.5, top_p=0.9),
    Coupling(seed=1, min_p=0.1),
]


def random_logits(seed: int) -> NDArray[np.float32]:
    return (2.5 * np.random.default_rng(seed).normal(size=N_VOCAB)).astype(np.float32)


def filtered(logits: NDArray[np.floating], c: Coupling) -> NDArray[np.int64]:
    """What llama.cpp's filters leave, one after the other: top-k, top-p, min-p."""
    order = np.argsort(-logits, kind="stable")[: c.top_k or None]
    p = np.exp(logits[order] - logits[order[0]])
    order = order[: int(np.searchsorted(np.cumsum(p / p.sum()), c.top_p)) + 1] if c.top_p < 1 else order
    return order[logits[order] >= logits[order[0]] + np.log(c.min_p)] if c.min_p else order


def drawn(logits: NDArray[np.floating], c: Coupling, position: int) -> int:
    """The token that a verifier with these logits draws."""
    left = filtered(logits, c)
    return int(left[np.argmax(logits[left] / c.temperature + gumbel(c.seed, position, left))])


def best(following: NextTokens) -> int:
    return int(following[0][np.argmax(following[1])])


@pytest.mark.parametrize("c", SETTINGS)
def test_the_likeliest_child_is_the_draw_where_draft_and_verifier_agree(c: Coupling) -> None:
    for position in range(50):
        logits = random_logits(position)
        tokens, logp = replace(c, position=position - 2).next_tokens(logits, [7, 8], SURE)
        assert best((tokens, logp)) == drawn(logits, c, position)
        assert np.exp(logp).sum() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("c", SETTINGS[:2])
def test_control_other_noise_has_other_children(c: Coupling) -> None:
    hits = [best(replace(c, seed=2).after([0] * i).next_tokens(random_logits(i), [], SURE)) for i in range(50)]
    assert sum(token == drawn(random_logits(i), c, i) for i, token in enumerate(hits)) < 25


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_chances_are_right_where_logits_differ_by_noise_of_the_spread(spread: float) -> None:
    """Without filters they are exactly so: what verifiers draw whose logits are the draft's and noise."""
    logits, c, rng = random_logits(3)[:40], Coupling(seed=5, temperature=0.8, position=9), np.random.default_rng(0)
    tokens, logp = c.next_tokens(logits, [], spread)
    p = np.zeros(len(logits))
    p[tokens] = np.exp(logp)
    others = logits + spread * rng.gumbel(size=(4000, len(logits)))
    seen = np.bincount([drawn(their, c, 9) for their in others], minlength=len(logits))
    assert p_value([(seen, p)]) > 0.001
    assert p_value([(seen, np.exp(random_logits(3)[:40]) / np.exp(random_logits(3)[:40]).sum())]) < 1e-6


@pytest.mark.parametrize(("spread", "least", "most"), [(0.05, 0.0, 1e-3), (2.0, 0.05, 0.5)])
def test_the_filters_edge_is_as_soft_as_logits_are_uncertain(spread: float, least: float, most: float) -> None:
    """Whatever the noise, a token that the draft's filters leave out is unlikely where the verifier's are the same."""
    logits = np.array([3.0, 2.9, 0.5, 0.1], np.float32)
    found = [Coupling(seed=seed, top_k=2).next_tokens(logits, [], spread) for seed in range(200)]
    beyond = max(chances_of(np.array([2, 3]), following).max() for following in found)
    assert least < beyond < most


def test_guesses_are_reweighted_by_the_noise_and_right_on_average() -> None:
    tokens, p = np.array([3, 8, 5]), np.array([0.5, 0.2, 0.1], np.float32)
    found = np.array([Coupling(seed=1, position=i).reweighted(tokens, p, 2) for i in range(2000)])
    assert found.mean(axis=0) == pytest.approx(p, abs=0.07)
    assert found.sum(axis=1).max() < 1 and found[:, 0].min() < 0.1 < 0.9 < found[:, 0].max()
    best_of = np.array([np.argmax(np.log(p) + gumbel(1, i + 2, tokens)) for i in range(2000)])
    assert (found.argmax(axis=1) == best_of).all()
    assert len(Coupling(seed=1).reweighted(tokens[:0], p[:0], 0)) == 0


def test_without_temperature_chances_are_a_softmax() -> None:
    logits = random_logits(1)
    tokens, logp = Coupling(seed=1, temperature=1e-9).next_tokens(logits, [], 0.7)
    expected = chances_of(tokens, softmax(logits, 0.7))
    assert np.exp(logp) == pytest.approx(expected, rel=1e-3)


def test_penalties_count_the_text_and_what_is_drafted() -> None:
    logits = np.array([5.0, 4.0, -1.0, -9.0], np.float32)
    c = Coupling(seed=1, temperature=1e-9, repeat_penalty=2.0, repeat_last_n=2).after([1, 0])
    assert best(c.next_tokens(logits, [], SURE)) == 0
    assert best(c.next_tokens(logits, [3], SURE)) == 1  # the 1 of the text is beyond the last two
    assert best(c.next_tokens(logits, [3, 3], SURE)) == 0
    assert best(c.next_tokens(logits, [3, 9], SURE)) == 0  # of 9 the draft knows nothing
    assert logits.tolist() == [5.0, 4.0, -1.0, -9.0]


@pytest.mark.parametrize("c", SETTINGS)
def test_only_likely_tokens_are_looked_at_and_hardly_any_is_missed(c: Coupling) -> None:
    """The verifier's draw in a large vocabulary, of which a thousand tokens matter at most."""
    rng = np.random.default_rng(4)
    logits = rng.permutation(-2.0 * np.log(np.arange(1, 50_001))).astype(np.float32)
    found = [replace(c, position=i).next_tokens(logits, [], 0.5) for i in range(100)]
    assert sum(drawn(logits, c, i) in tokens for i, (tokens, _) in enumerate(found)) >= 93


def test_what_was_left_out_has_the_least_of_chances() -> None:
    following = np.array([4, 2]), np.log(np.array([0.75, 0.25], np.float32))
    assert chances_of(np.array([2, 3, 4]), following) == pytest.approx([0.25, 1e-6, 0.75], rel=1e-5)
    assert len(chances_of(np.array([], np.int64), following)) == 0
