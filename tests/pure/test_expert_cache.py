"""Which experts stay in memory."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from cadcpp.residency.expert_cache import ExpertCache, kept_bytes, lendable_bytes, usable_bytes
from cadcpp.residency.layout import ExpertLayer, Extent
from cadcpp.system.mapping import PAGE

N_LAYERS, N_EXPERTS, SIZE = 6, 8, 3 * PAGE
LAYERS = tuple(
    ExpertLayer(i, N_EXPERTS, tuple((0, (3 * i + k) << 20, SIZE // 3) for k in range(3))) for i in range(N_LAYERS)
)
WHOLE = N_LAYERS * N_EXPERTS * SIZE


def made(room: int) -> ExpertCache:
    """In ``room`` bytes in all."""
    return ExpertCache(LAYERS, kept_bytes(LAYERS, room), room)


def run(cache: ExpertCache, n_passes: int, choose: Callable[[int], Iterable[int]]) -> list[int]:
    """Bytes read in each pass; ``choose(layer)`` gives the experts of a layer."""
    reads = []
    for _ in range(n_passes):
        reads.append(0)
        for layer in range(N_LAYERS):
            missing, _ = cache.choose(layer, np.array([list(choose(layer))]))
            reads[-1] += sum(map(len, missing))
            cache.make_room(layer)
            cache.evict(layer)
    return reads


def test_rows_that_fill_a_pass_up_are_in_memory_and_tell_nothing_of_others() -> None:
    alone, filled = made(WHOLE), made(WHOLE)
    for _ in range(20):
        for layer in range(N_LAYERS):
            alone.choose(layer, np.array([[layer, 3]]))
            filled.choose(layer, np.array([[layer, 3], [layer, 4]]), 1)
    assert (filled.demand.heat == alone.demand.heat).all() and filled.demand.alike == alone.demand.alike
    assert filled.choose(0, np.array([[4]]))[0] == []
    control = made(WHOLE)
    control.choose(0, np.array([[0, 3], [0, 3]]))
    assert control.demand.alike != alone.demand.alike


def test_what_fits_is_read_once() -> None:
    assert run(made(WHOLE), 3, lambda _: range(N_EXPERTS)) == [WHOLE, 0, 0]


def test_an_expert_is_a_slice_of_every_tensor() -> None:
    extents, _ = made(WHOLE).choose(2, np.array([[5]]))
    assert [(e.start, len(e)) for e in extents] == [((6 + k << 20) + 5 * SIZE // 3, SIZE // 3) for k in range(3)]


def test_only_what_is_chosen_is_read() -> None:
    cache = made(WHOLE)
    assert run(cache, 2, lambda layer: [layer, 7, 7]) == [N_LAYERS * 2 * SIZE - (0 if N_LAYERS < 8 else SIZE), 0]


def test_passes_that_use_everything_do_not_evict_each_other() -> None:
    """Where a cache of the latest would read all of it every time."""
    room = WHOLE // 2
    reads = run(made(room), 8, lambda _: range(N_EXPERTS))
    kept = room - N_EXPERTS * SIZE  # one layer's experts must have room to pass through
    assert reads[-1] <= WHOLE - kept


def test_the_hot_ones_stay() -> None:
    """Two of eight experts take most of the rows; there is room for about three a layer."""
    rng = np.random.default_rng(0)
    share = np.array([0.4, 0.4, *[0.2 / 6] * 6])
    cache = made(WHOLE // 2)
    reads = run(cache, 60, lambda _: rng.choice(N_EXPERTS, 2, replace=False, p=share))
    chosen = N_LAYERS * 2 * SIZE
    assert np.mean(reads[20:]) < 0.3 * chosen


@pytest.mark.parametrize("room", [WHOLE // 8, WHOLE // 2, WHOLE - 1])
def test_between_layers_the_room_is_kept(room: int) -> None:
    rng = np.random.default_rng(1)
    cache, resident = made(room), set[Extent]()
    for _ in range(20):
        for layer in range(N_LAYERS):
            chosen = rng.choice(N_EXPERTS, 3, replace=False)
            missing = set(cache.choose(layer, chosen[None])[0])
            resident -= set(cache.make_room(layer))
            resident |= missing
            assert sum(len(e) for e in resident) <= max(room, 3 * SIZE)
            assert resident >= {e for expert in chosen for e in LAYERS[layer].extents(expert)}
            resident -= set(cache.evict(layer))
            assert sum(len(e) for e in resident) <= room


def test_all_of_the_room_is_used_but_for_what_a_row_needs() -> None:
    """And not but for a whole layer, which only long texts use at once."""
    room = WHOLE // 2
    assert kept_bytes(LAYERS, room) == room - SIZE
    reads = run(made(room), 12, lambda layer: range(4) if layer < 5 else range(3))
    assert room == (5 * 4 + 4) * SIZE and reads == [(5 * 4 + 3) * SIZE, *[0] * 11]


def test_pages_that_two_experts_share_are_set_aside() -> None:
    """They stay when one of the two goes; of whole pages there are none."""
    odd = [ExpertLayer(0, 8, ((0, 100, SIZE // 3 + 10), (0, 1 << 20, SIZE)))]
    assert odd[0].border_bytes == 9 * PAGE and LAYERS[0].border_bytes == 0
    room = 6 * odd[0].expert_bytes
    assert usable_bytes(odd, room) == room - 9 * PAGE
    assert kept_bytes(odd, room) == room - 9 * PAGE - odd[0].expert_bytes
    assert usable_bytes(odd, odd[0].n_bytes) == kept_bytes(odd, odd[0].n_bytes) == odd[0].n_bytes


def test_less_room_drops_the_coldest_at_once() -> None:
    cache = made(WHOLE // 2)
    run(cache, 8, lambda layer: [layer % 4, 5])
    dropped = cache.resize(kept_bytes(LAYERS, WHOLE // 4), WHOLE // 4)
    assert 0 < sum(map(len, dropped)) <= WHOLE // 4 and cache.resize(kept_bytes(LAYERS, WHOLE // 4), WHOLE // 4) == []


def test_what_is_lent_leaves_room_for_two_layers() -> None:
    """One that is computed and one that is read meanwhile; where everything fits nothing is lent."""
    layer = N_EXPERTS * SIZE
    assert lendable_bytes(LAYERS, 4 * layer) == layer
    assert lendable_bytes(LAYERS, 2 * layer) == lendable_bytes(LAYERS, layer) == lendable_bytes(LAYERS, WHOLE) == 0
    assert lendable_bytes([], 1 << 30) == lendable_bytes([], -1) == 0


def test_more_room_keeps_more_from_then_on() -> None:
    """And what is in memory stays."""
    room, more, chosen = WHOLE // 2, WHOLE // 4, lambda _: range(N_EXPERTS)
    cache = made(room)
    before = run(cache, 8, chosen)[-1]
    cache.resize(kept_bytes(LAYERS, room + more), room + more)
    assert before - run(cache, 8, chosen)[-1] == more


@pytest.mark.parametrize("more", [WHOLE // 16, WHOLE // 4, WHOLE])
def test_what_more_room_would_spare_is_counted(more: int) -> None:
    """As a cache that has it reads less of the same choices."""
    rng, room, told = np.random.default_rng(6), WHOLE // 4, list[float]()
    share = 1.0 / np.arange(1, N_EXPERTS + 1)
    small, large = made(room), made(room + more)
    read = np.zeros(2)
    for n in range(600):
        chosen = [rng.choice(N_EXPERTS, 2, replace=False, p=share / share.sum()) for _ in range(N_LAYERS)]
        told.append(small.spared_by(more))
        reads = [run(cache, 1, lambda layer: chosen[layer])[0] for cache in (small, large)]  # noqa: B023 - run at once
        read += reads if n >= 200 else 0
    assert np.mean(told[200:]) == pytest.approx(1 - read[1] / read[0], abs=0.05)
    assert made(WHOLE).spared_by(more) == 0.0
