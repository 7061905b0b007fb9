"""What ways of choosing which experts stay would have read, on routings that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from bench.studies import expert_replay

CACHES = (expert_replay.own, expert_replay.latest, expert_replay.frequent, expert_replay.optimum)


def skewed(n_tokens: int = 160, n_layers: int = 4, n_experts: int = 32, n_used: int = 4) -> expert_replay.Routing:
    """Choices by a Zipf-like popularity which shifts in the middle of the text."""
    rng = np.random.default_rng(3)
    score = -np.log(1.0 + np.array([[rng.permutation(n_experts) for _ in range(n_layers)] for _ in range(2)]))
    noise = rng.gumbel(size=(n_tokens, n_layers, n_experts)) * 0.6
    scores = noise + score[np.arange(n_tokens) * 2 // n_tokens]
    return np.argsort(-scores, axis=2)[:, :, :n_used]


def test_the_optimum_keeps_what_is_used_again_first() -> None:
    """One layer, one expert a token, room for two: 2 and 3 are not worth keeping."""
    routing = np.array([0, 1, 2, 0, 1, 3, 0]).reshape(-1, 1, 1)
    assert expert_replay.optimum(routing, 4, 2).tolist() == [1, 1, 1, 0, 0, 1, 0]
    assert expert_replay.latest(routing, 4, 2).tolist() == [1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("cache", CACHES)
def test_with_room_for_all_each_expert_is_read_once(cache: expert_replay.Replay) -> None:
    routing = skewed()
    reads = cache(routing, 32, 4 * 32)
    assert reads.sum() == sum(len(np.unique(routing[:, layer])) for layer in range(4))


@pytest.mark.parametrize("cache", CACHES)
def test_with_room_for_one_layer_s_use_nothing_is_found_again(cache: expert_replay.Replay) -> None:
    """Of four layers in turn, a cache that holds less than a token's use can keep only what is used again soon."""
    routing = np.tile(np.arange(4)[None, None], (10, 4, 1))  # the same four experts in every layer, always
    assert cache(routing, 32, 16).tolist() == [16, *[0] * 9]
    assert cache(routing, 32, 4)[1:].min() >= 12


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_own_cache_is_between_the_optimum_and_the_latest(share: float) -> None:
    routing = skewed()
    room = int(share * 4 * 32)
    own, latest, optimum = (cache(routing, 32, room).sum() for cache in (*CACHES[:2], CACHES[3]))
    assert optimum <= own <= latest


def test_a_popularity_that_shifts_is_followed() -> None:
    """Where a cache of what was used most often since the beginning clings to what was popular then."""
    routing = skewed()
    own, ever = (cache(routing, 32, 32)[120:].sum() for cache in (expert_replay.own, expert_replay.frequent))
    assert own < ever


@pytest.fixture(scope="module")
def recorded() -> expert_replay.Routing:
    """Five layers of the made mixture of 128 experts, six texts one after the other: [434, 5, 8]."""
    with np.load(Path(__file__).with_name("recorded_routing.npz")) as file:
        return np.asarray(file["chosen"], np.int64)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_on_a_recorded_routing_the_own_cache_reads_least_of_all_that_do_not_know_the_future(
    recorded: expert_replay.Routing, share: float
) -> None:
    half, room = len(recorded) // 2, int(share * 5 * 128)
    reads = {cache: cache(recorded, 128, room)[half:].sum() for cache in CACHES}
    best = reads.pop(expert_replay.optimum)
    own = reads.pop(expert_replay.own)
    print({c.__name__: r / best for c, r in reads.items()}, own / best)
    assert best < own < min(reads.values())
