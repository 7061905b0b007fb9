"""What is read for routed experts, and again after a read that failed."""

from typing import Any, cast

import numpy as np
import pytest

from cadcpp.errors import ModelError
from cadcpp.residency.expert_cache import ExpertCache
from cadcpp.residency.expert_reader import ExpertReader
from cadcpp.residency.layout import ExpertLayer

SIZE = 10
LAYERS = [ExpertLayer(layer, 4, ((0, layer * 4 * SIZE, SIZE),)) for layer in range(2)]


class Disk:
    """Writes down what is asked, read and dropped, as experts of the file: the first and the one beyond."""

    def __init__(self) -> None:
        self.asked, self.read = list[tuple[int, int]](), list[tuple[int, int]]()
        self.dropped, self.fails = list[int](), False

    def will_need(self, part: int, start: int, stop: int) -> None:
        self.asked.append((start // SIZE, stop // SIZE))

    def populate(self, part: int, start: int, stop: int) -> None:
        if self.fails:
            raise ModelError("broken")
        self.read.append((start // SIZE, stop // SIZE))

    def drop(self, part: int, start: int, stop: int) -> None:
        self.dropped.append(start // SIZE)


def reader(room: int) -> tuple[ExpertReader, Disk]:
    disk = Disk()
    return ExpertReader(cast(Any, disk), ExpertCache(LAYERS, room * SIZE)), disk


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
