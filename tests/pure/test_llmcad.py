"""LLMCad's formulas, step by step."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.draft.branch_pacer import BranchPacer
from cadcpp.policy.base import Observation
from cadcpp.policy.llmcad import AdaptiveFallback
from cadcpp.tree.limits import DraftBudget, GrowthOptions

NEVER = np.array([0], np.int32)


def seen(n_accepted: int, n_branch: int) -> Observation:
    return Observation(
        n_rows=9,
        n_evaluated=8,
        n_tokens=n_accepted + 1,
        n_accepted=n_accepted,
        n_branch=n_branch,
        draft_s=0.1,
        compute_s=1.0,
    )


def test_the_threshold_follows_equation_3() -> None:
    fallback = AdaptiveFallback()
    steps = [((4, 4), 0.005), ((3, 3), 0.0025), ((3, 4), 0.25), ((2, 2), 0.125), ((0, 5), 1.0), ((1, 1), 0.5)]
    for (n_accepted, n_branch), alpha in steps:
        fallback.observe(seen(n_accepted, n_branch))
        assert fallback.alpha == pytest.approx(alpha)


def test_the_threshold_has_a_floor_and_passes_without_a_draft_say_nothing() -> None:
    fallback = AdaptiveFallback()
    for _ in range(100):
        fallback.observe(seen(2, 2))
    assert fallback.alpha == 1e-6
    fallback.observe(seen(0, 0))
    assert fallback.alpha == 1e-6


def next_tokens(**probabilities: float) -> NDArray[np.float32]:
    """Logits [1, 10] of a distribution: t3=0.6 is token 3; the rest is spread over the others."""
    chosen = {int(name[1:]): p for name, p in probabilities.items()}
    rest = (1 - sum(chosen.values())) / (10 - len(chosen))
    return np.log(np.array([[chosen.get(t, rest) for t in range(10)]], np.float32))


def grown(alpha: float = 0.01, rows: int = 64, max_depth: int = 50) -> BranchPacer:
    growth = BranchPacer(
        7, DraftBudget(max_size=rows, max_depth=max_depth, min_confidence=alpha), GrowthOptions(), NEVER
    )
    assert growth.frontier() == [0]
    return growth


def test_a_branch_opens_above_30_percent() -> None:
    growth = grown()
    growth.expand([0], next_tokens(t3=0.55, t4=0.31, t5=0.1))
    tree = growth.tree()
    assert tree.token.tolist() == [7, 3, 4]
    assert np.exp(tree.logp[1:]) == pytest.approx([0.55, 0.31], rel=1e-3)


def test_the_likeliest_token_goes_on_however_unlikely_and_end_tokens_never() -> None:
    growth = grown()
    growth.expand([0], next_tokens(t0=0.7, t3=0.08))
    assert growth.tree().token.tolist() == [7, 3]


def test_drafting_ends_when_no_branch_is_confident_enough() -> None:
    growth, steps = grown(alpha=0.2), 0
    while rows := growth.frontier():
        growth.expand(rows, next_tokens(t3=0.6))
        steps += 1
    assert steps == math.ceil(math.log(0.2) / math.log(0.6))  # 0.6^4 < 0.2 <= 0.6^3


def test_branches_get_tokens_in_proportion_to_their_confidence() -> None:
    """Two branches of 0.6 and 0.3 that both go on with certainty share the work 2 : 1."""
    growth, work = grown(rows=40), {3: 0, 4: 0}
    growth.expand([0], next_tokens(t3=0.6, t4=0.31))
    first = {1: 3, 2: 4}
    while rows := growth.frontier():
        (row,) = rows
        work[first[row]] += 1
        first[len(first) + 1] = first[row]
        growth.expand(rows, next_tokens(t5=0.9999))
    assert work[3] / work[4] == pytest.approx(2.0, abs=0.25)


def test_limits() -> None:
    growth = grown(rows=5, max_depth=50)
    while rows := growth.frontier():
        growth.expand(rows, next_tokens(t3=0.5, t4=0.4))
    assert len(growth.tree()) <= 5
    growth = grown(alpha=0.0001, max_depth=3)
    while rows := growth.frontier():
        growth.expand(rows, next_tokens(t3=0.9))
    assert growth.tree().depth.max() == 3
