"""How likely experts are to be used, as routings tell."""

import json

import numpy as np
import pytest

from cadcpp.residency.expert_demand import ExpertDemand

N = 64
ALL = np.ones(N, bool)


def demand(n_layers: int = 1, n_used: int = 4) -> ExpertDemand:
    return ExpertDemand(np.full((n_layers, N), n_used / N))


def alone(rng: np.random.Generator, share: np.ndarray, n: int, n_used: int = 4) -> np.ndarray:
    """Rows that have nothing to do with each other."""
    return np.array([rng.choice(N, n_used, replace=False, p=share) for _ in range(n)])


def zipf() -> np.ndarray:
    share = 1.0 / np.arange(1, N + 1)
    return np.asarray(share / share.sum())


def union(seen: ExpertDemand, n: int, missing: np.ndarray | None = None) -> float:
    everything = np.ones((len(seen.rate), N), bool)
    return float(seen.expected(everything if missing is None else missing, np.array([n]))[0, 0])


def test_one_row_uses_what_it_uses() -> None:
    assert union(demand(), 1) == pytest.approx(4)
    seen, rng = demand(), np.random.default_rng(0)
    for _ in range(300):
        seen.observe(0, alone(rng, zipf(), 1), ALL)
    assert union(seen, 1) == pytest.approx(4, rel=1e-6)
    assert seen.rate[0, :4].sum() > 4 * seen.rate[0, 32:36].sum()


def test_what_is_in_memory_is_not_missing() -> None:
    missing = np.arange(N)[None] >= N // 2
    assert union(demand(), 1, missing) == pytest.approx(2)


@pytest.mark.parametrize("n", [4, 8, 16])
def test_rows_that_are_alike_use_fewer_than_rows_that_are_not(n: int) -> None:
    """The union is learned either way: of rows drawn at random, and of pairs of rows that use the same."""
    rng = np.random.default_rng(1)
    apart, alike = demand(), demand()
    for _ in range(400):
        rows = alone(rng, zipf(), n)
        apart.observe(0, rows, ALL)
        alike.observe(0, np.repeat(rows[: n // 4], 4, axis=0), ALL)
    used = np.mean([len(np.unique(alone(rng, zipf(), n))) for _ in range(50)])
    fewer = np.mean([len(np.unique(alone(rng, zipf(), n // 4))) for _ in range(50)])
    assert union(apart, n) == pytest.approx(used, rel=0.15)
    assert union(alike, n) == pytest.approx(fewer, rel=0.2)
    assert alike.alike < apart.alike


def test_many_rows_count_for_more_than_one() -> None:
    one, many = demand(), demand()
    one.observe(0, np.array([[1, 2, 3, 4]]), ALL)
    many.observe(0, np.tile([1, 2, 3, 4], (100, 1)), ALL)
    assert one.heat[0, 1] < 0.15 and many.heat[0, 1] > 0.8


def test_the_hit_rate_is_that_of_the_likeliest() -> None:
    seen = demand(2)
    for rate in (seen.rate, seen.lately):
        rate[:] = 0.0
        rate[0, :4], rate[1, 0] = 0.5, 1.0
    sizes = np.array([10, 20])
    assert [seen.hit_rate(sizes, room) for room in (0, 20, 40, 60, 1280)] == [
        0,
        *map(pytest.approx, (1 / 3, 2 / 3, 1, 1)),
    ]


def test_what_was_learned_is_kept_in_a_few_kilobytes() -> None:
    seen, rng = ExpertDemand(np.full((48, 128), 8 / 128)), np.random.default_rng(2)
    for layer in range(48):
        seen.observe(layer, rng.integers(128, size=(200, 8)), np.ones(128, bool))
    text = json.dumps(seen.learned())
    assert len(text) < 16_000
    again = ExpertDemand(np.zeros((48, 128)))
    again.recall(json.loads(text))
    assert np.abs(again.rate - seen.rate).max() < 0.5 / 255 + 1e-9 and again.alike == seen.alike


@pytest.mark.parametrize("change", [{"rate": []}, {"rate": ["00"]}, {"rate": 7}, {"alike": -1}, {"alike": None}])
def test_nonsense_is_refused_and_changes_nothing(change: dict[str, object]) -> None:
    seen = demand()
    with pytest.raises((TypeError, ValueError)):
        seen.recall(seen.learned() | change)
    assert seen.rate[0, 0] == 4 / N


def test_what_rows_have_in_common_is_learned_of_experts_that_are_missing() -> None:
    """Rows that share all that is in memory and nothing else are as dear as rows that share nothing."""
    seen, rng, missing = demand(n_used=8), np.random.default_rng(3), np.arange(N) >= 8
    for _ in range(400):
        others = rng.choice(np.arange(8, N), (4, 2))
        seen.observe(0, np.hstack([np.tile(np.arange(6), (4, 1)), others]), missing)
    used = np.mean([len(np.unique(rng.choice(np.arange(8, N), (4, 2)))) for _ in range(200)])
    assert union(seen, 4, missing[None]) == pytest.approx(used, rel=0.05)
    seen.alike = 0.7  # as of all experts
    assert union(seen, 4, missing[None]) < 0.8 * used


def test_a_prompt_does_not_tell_what_few_rows_have_in_common() -> None:
    """Its rows use nearly all that there is, so that the next ones add little."""
    seen, rng = demand(), np.random.default_rng(4)
    for _ in range(50):
        seen.observe(0, alone(rng, zipf(), 4), ALL)
    before, after = seen.alike, demand()
    for _ in range(50):
        seen.observe(0, np.repeat(alone(rng, zipf(), 5), 20, axis=0), ALL)
    assert seen.alike == before
    for _ in range(50):
        after.observe(0, np.repeat(alone(rng, zipf(), 2), 4, axis=0), ALL)
    assert after.alike < before  # control: few rows do


def test_a_layer_without_rows_teaches_nothing() -> None:
    """As the last one in a pass of which no logits are asked."""
    seen = demand()
    seen.observe(0, np.zeros((0, 4), np.int32), ALL)
    assert (seen.heat == 4 / N).all() and union(seen, 1) == pytest.approx(4)
