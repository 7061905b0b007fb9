"""What is read for routed experts, and again after a read that failed."""

from typing import Any, cast

import pytest

from cadcpp.errors import ModelError
from cadcpp.residency.expert_cache import ExpertCache
from cadcpp.residency.expert_reader import ExpertReader
from cadcpp.residency.layout import ExpertLayer

SIZE = 10
LAYERS = [ExpertLayer(layer, 4, ((0, layer * 4 * SIZE, SIZE),)) for layer in range(2)]


class Disk:
    """Writes down what is asked, read and dropped, by number of the expert in the file."""

    def __init__(self) -> None:
        self.asked, self.read, self.dropped, self.fails = list[int](), list[int](), list[int](), False

    def will_need(self, part: int, start: int, stop: int) -> None:
        self.asked.append(start // SIZE)

    def populate(self, part: int, start: int, stop: int) -> None:
        if self.fails:
            raise ModelError("broken")
        self.read.append(start // SIZE)

    def drop(self, part: int, start: int, stop: int) -> None:
        self.dropped.append(start // SIZE)


def reader(room: int) -> tuple[ExpertReader, Disk]:
    disk = Disk()
    return ExpertReader(cast(Any, disk), ExpertCache(LAYERS, room * SIZE)), disk


def test_what_is_in_memory_is_not_read_again() -> None:
    experts, disk = reader(room=8)
    for chosen in ([2, 0, 2], [0, 1]):
        experts.read(1, chosen)
        experts.drop(1)
    assert disk.asked == disk.read == [4, 6, 5] and disk.dropped == []
    assert experts.n_bytes == 3 * SIZE


def test_what_finds_no_room_is_dropped_when_its_layer_is_computed() -> None:
    experts, disk = reader(room=2)
    experts.read(0, [0, 1, 2])
    assert disk.dropped == []
    experts.drop(0)
    assert len(disk.dropped) == 2
    experts.read(0, disk.dropped)
    assert sorted(disk.read[3:]) == sorted(disk.dropped)


def test_what_could_not_be_read_is_read_the_next_time() -> None:
    experts, disk = reader(room=8)
    disk.fails = True
    with pytest.raises(ModelError):
        experts.read(0, [3])
    assert experts.n_bytes == 0
    disk.fails = False
    experts.read(0, [3])
    assert disk.read == [3]
