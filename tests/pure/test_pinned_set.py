"""Chunks that are to stay: which do, which must be dropped, and which are to be read."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cadcpp.residency.layout import Extent
from cadcpp.residency.pinned_set import PinnedSet

SIZE = 10
CHUNKS = [Extent(0, i * SIZE, (i + 1) * SIZE, i) for i in range(8)]
ALL = SIZE * len(CHUNKS)


def full() -> PinnedSet:
    """All is resident, and the first half is locked."""
    pinned = PinnedSet(CHUNKS)
    for chunk in CHUNKS:
        pinned.add(chunk, locked=chunk.layer < 4)
    return pinned


def n_bytes(chunks: set[Extent]) -> int:
    return sum(map(len, chunks))


def test_at_first_all_is_missing() -> None:
    pinned = PinnedSet(CHUNKS)
    assert (pinned.n_bytes, pinned.missing, pinned.resident_bytes) == (ALL, set(CHUNKS), 0)


def test_what_was_read_stays() -> None:
    pinned = PinnedSet(CHUNKS)
    pinned.add(CHUNKS[2], locked=True)
    pinned.add(CHUNKS[3], locked=False)
    assert pinned.missing == set(CHUNKS) - {CHUNKS[2], CHUNKS[3]}
    assert (pinned.resident_bytes, pinned.locked_bytes) == (2 * SIZE, SIZE)


def test_what_must_go_is_dropped_and_no_longer_locked() -> None:
    pinned = full()
    pinned.taken = ALL
    assert pinned.rebalance() == set(CHUNKS) == pinned.streamed
    assert (pinned.resident_bytes, pinned.locked_bytes, pinned.missing) == (0, 0, set())


def test_what_is_streamed_comes_from_all_layers_alike() -> None:
    pinned = full()
    pinned.taken = ALL // 2
    layers = sorted(chunk.layer for chunk in pinned.rebalance())
    assert [b - a for a, b in zip(layers, layers[1:], strict=False)] == [2, 2, 2]


def test_what_comes_back_is_missing_until_it_is_read() -> None:
    pinned = full()
    pinned.taken = 3 * SIZE
    dropped = pinned.rebalance()
    pinned.taken = 0
    assert pinned.rebalance() == set()
    assert pinned.missing == dropped and not pinned.streamed


def test_what_was_never_read_need_not_be_dropped() -> None:
    pinned = PinnedSet(CHUNKS)
    pinned.add(CHUNKS[0], locked=False)
    pinned.taken = ALL
    assert pinned.rebalance() == {CHUNKS[0]}


def test_the_window_shrinks_when_all_is_evicted_and_that_is_not_enough() -> None:
    pinned = full()
    for evicted, room in ((0, 50), (ALL, 50), (ALL + 20, 30), (ALL + 48, 4)):
        pinned.taken = evicted
        assert pinned.window_room(50, least=4) == room
    assert pinned.window_room(2, least=4) == 4


@settings(max_examples=200)
@given(st.lists(st.integers(1, 30), max_size=20), st.lists(st.integers(0, 400), min_size=1, max_size=8))
def test_every_chunk_is_in_one_place_and_no_more_is_streamed_than_asked(sizes: list[int], asked: list[int]) -> None:
    chunks = [Extent(0, 100 * i, 100 * i + size, i) for i, size in enumerate(sizes)]
    pinned = PinnedSet(chunks)
    for n in asked:
        before = pinned.resident_bytes
        pinned.taken = n
        dropped = pinned.rebalance()
        assert min(n, pinned.n_bytes) <= pinned.streamed_bytes < n + max([1, *sizes])
        assert before - n_bytes(dropped) == pinned.resident_bytes
        assert pinned.resident_bytes + pinned.streamed_bytes + n_bytes(pinned.missing) == pinned.n_bytes
        for chunk in pinned.missing:
            for _ in range(2):  # it may be asked for twice, by one pass and by the next
                pinned.add(chunk, locked=chunk.layer % 2 == 0)
        assert not pinned.missing
        locked = {chunk for chunk in chunks if chunk.layer % 2 == 0 and chunk not in pinned.streamed}
        assert pinned.locked_bytes == n_bytes(locked)
