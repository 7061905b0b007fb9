"""What is read for routed experts, and again after a read that failed."""

from typing import Any, cast

import numpy as np
import pytest

from cadcpp.errors import ModelError
from cadcpp.residency.expert_cache import ExpertCache
from cadcpp.residency.expert_reader import ExpertReader
from cadcpp.residency.layout import ExpertLayer

SIZE = 10
LAYERS = [ExpertLayer(layer, 4, ((0, layer * 4 * SIZE, SIZE),)) for layer in range(3)]
MANY = np.tile([0, 1, 2], 20)[:, None]  # what 60 rows use


class Disk:
    """Writes down what is asked, read and dropped, as experts of the file: the first and the one beyond."""

    def __init__(self) -> None:
        self.asked, self.read = list[tuple[int, int]](), list[tuple[int, int]]()
        self.dropped, self.fails = list[int](), False
        self.taken = set[int]()  # by the system

    def will_need(self, part: int, start: int, stop: int) -> None:
        self.asked.append((start // SIZE, stop // SIZE))

    def populate(self, part: int, start: int, stop: int) -> None:
        if self.fails:
            raise ModelError("broken")
        self.read.append((start // SIZE, stop // SIZE))

    def in_memory(self, part: int, start: int, stop: int) -> bool:
        return start // SIZE not in self.taken

    def drop(self, part: int, start: int, stop: int) -> None:
        self.dropped.append(start // SIZE)


def reader(room: int, in_all: int | None = None) -> tuple[ExpertReader, Disk]:
    """With room for so many experts that stay, and for so many in all."""
    disk = Disk()
    cache = ExpertCache(LAYERS, room * SIZE, in_all and in_all * SIZE)
    return ExpertReader(cast(Any, disk), cache), disk


def test_what_is_in_memory_is_not_read_again() -> None:
    experts, disk = reader(room=8)
    for chosen in ([[2, 0], [2, 3]], [[0, 1]]):
        experts.read(1, np.array(chosen))
        experts.drop(1)
    assert disk.asked == disk.read == [(4, 5), (6, 8), (5, 6)] and disk.dropped == []
    assert experts.n_bytes == 4 * SIZE
    assert (experts.n_used, experts.n_read) == (5, 4)


def test_what_finds_no_room_is_dropped_when_its_layer_is_computed() -> None:
    experts, disk = reader(room=1)
    experts.read(0, np.array([[0, 2], [3, 0]]))
    assert disk.dropped == []
    experts.drop(0)
    assert len(disk.dropped) == 2
    experts.read(0, np.array([disk.dropped]))
    assert {n for start, stop in disk.read[2:] for n in range(start, stop)} == set(disk.dropped)


def test_what_could_not_be_read_is_read_the_next_time() -> None:
    experts, disk = reader(room=8)
    disk.fails = True
    with pytest.raises(ModelError):
        experts.read(0, np.array([[3]]))
    assert (experts.n_bytes, experts.n_read) == (0, 0)
    disk.fails = False
    experts.read(0, np.array([[3]]))
    assert disk.read == [(3, 4)]


def ahead_of(seconds: float, in_all: int = 12) -> tuple[ExpertReader, Disk, list[tuple[int, int]]]:
    """Two layers of 60 rows, of which the first took so long to compute, and what was asked for beyond their own."""
    experts, disk = reader(4, in_all)
    with pytest.MonkeyPatch.context() as patch:
        now = [0.0]
        patch.setattr("cadcpp.residency.expert_reader.time.perf_counter", lambda: now[0])
        experts.read(0, MANY)
        experts.drop(0)
        now[0] = seconds
        experts.read(1, MANY)
    return experts, disk, disk.asked[2:]


def test_many_rows_have_the_next_layers_experts_read_meanwhile() -> None:
    """As far as the disk can read them while a layer is computed; nothing of them counts as read yet."""
    experts, _, asked = ahead_of(seconds=1.0)
    assert asked == [(8, 12)] and experts.n_bytes == 6 * SIZE
    assert ahead_of(seconds=0.0)[2] == []
    assert ahead_of(seconds=2.5 * SIZE * 2e-9)[2] in [[(8, 10)], [(8, 9), (9, 10)]]


def test_few_rows_have_nothing_read_ahead() -> None:
    experts, disk = reader(4, 12)
    experts.read(0, np.array([[0], [1]]))
    experts.read(1, np.array([[0], [1]]))
    assert disk.asked == [(0, 2), (4, 6)]


def test_what_was_read_ahead_in_vain_is_dropped_and_counted() -> None:
    experts, disk, _ = ahead_of(seconds=1.0)
    experts.read(2, MANY)
    assert disk.dropped == [11] and disk.read[-1] == (8, 11) and experts.n_bytes == 10 * SIZE
    assert (experts.n_ahead, experts.n_wrong) == (4, 1)


def test_what_was_read_ahead_in_a_pass_that_ended_is_dropped() -> None:
    experts, disk, _ = ahead_of(seconds=1.0)
    experts.read(0, MANY)
    assert disk.dropped == [8, 9, 10, 11]


def test_reading_ahead_stays_within_the_room() -> None:
    """Which the experts that a layer uses just now, and what is read ahead, have together."""
    _, disk, asked = ahead_of(seconds=1.0, in_all=5)
    n_ahead = sum(stop - start for start, stop in asked)
    assert n_ahead == 2 and set(disk.dropped) == {0, 1, 2}


def test_time_between_two_passes_is_no_time_to_read_ahead() -> None:
    """It may be a user's, who thinks."""
    experts, disk, _ = ahead_of(seconds=1.0)
    experts.read(2, MANY)
    asked = len(disk.asked)
    experts.read(0, MANY)
    assert all(stop <= 4 for _, stop in disk.asked[asked:])


def test_how_long_passes_wait_is_learned_of_those_with_few_rows() -> None:
    """A prompt's reads are of another order."""
    experts, disk = reader(0, 12)
    with pytest.MonkeyPatch.context() as patch:
        now = [0.0]
        patch.setattr("cadcpp.residency.expert_reader.time.perf_counter", lambda: now[0])
        patch.setattr(disk, "populate", lambda *_: now.__setitem__(0, now[0] + 3.0))
        for rows in ([[0]], [[0], [2]], MANY, [[1]]):
            experts.read(1, np.array(rows))
            experts.drop(1)
            experts.end_pass()
    seconds = experts.expected_seconds()
    n_bytes = experts.cache.expected_bytes(np.arange(len(seconds)))
    assert seconds[1] == pytest.approx(3.0 * n_bytes[1] / SIZE, rel=0.3)
    assert seconds[1] > 1000 * 2e-9 * n_bytes[1]


def test_experts_that_the_system_has_taken_are_read_again() -> None:
    """And what it read around them is dropped, so that it does not drive out more."""
    experts, disk = reader(room=12)
    for layer in range(3):
        experts.read(layer, np.array([[0, 1, 2]]))
        experts.drop(layer)
    assert experts.look() == 0 and disk.dropped == []
    disk.taken = {1, 9, 10}
    assert sum(experts.look() for _ in range(9)) == 3 * SIZE
    assert experts.cache.n_bytes == 6 * SIZE
    assert disk.dropped == [1, 3, 7, 9]  # each with what comes after it, as far as it is not kept
    disk.taken, disk.read = set(), []
    experts.read(2, np.array([[0, 1, 2]]))
    assert disk.read == [(9, 11)]


def test_a_few_experts_are_looked_at_each_time_and_all_of_them_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cadcpp.residency.expert_reader._LOOKED_AT", 3)
    experts, disk = reader(room=12)
    for layer in range(3):
        experts.read(layer, np.array([[0, 1, 2, 3]]))
    asked: list[int] = []

    def in_memory(_part: int, start: int, _stop: int) -> bool:
        asked.append(start // SIZE)
        return True

    monkeypatch.setattr(disk, "in_memory", in_memory)
    for _ in range(5):
        before = len(asked)
        experts.look()
        assert len(asked) - before <= 3
    assert set(asked) == set(range(12))
