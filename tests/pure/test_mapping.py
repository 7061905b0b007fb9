"""What of a mapped range is in memory."""

from collections.abc import Iterator
from contextlib import closing
from mmap import PAGESIZE, mmap
from pathlib import Path

import numpy as np
import pytest

from cadcpp.gguf.header import Part
from cadcpp.system.mapping import Mapping, Segment

N = 16  # pages


@pytest.fixture
def stretch(tmp_path: Path) -> Iterator[tuple[Mapping, np.ndarray]]:
    """Pages of which none is in memory, at the place of a file's, and their bytes."""
    path = tmp_path / "file"
    path.touch()
    memory = np.frombuffer(mmap(-1, N * PAGESIZE), np.uint8)
    segments = [Segment(0, PAGESIZE, (N + 1) * PAGESIZE, memory.ctypes.data)]
    with closing(Mapping((Part(path, 0, 0),), segments)) as mapping:
        yield mapping, memory


def test_pages_are_in_memory_once_they_are_touched(stretch: tuple[Mapping, np.ndarray]) -> None:
    mapping, memory = stretch

    def are_in(first: int, stop: int) -> bool:
        return mapping.in_memory(0, (first + 1) * PAGESIZE, (stop + 1) * PAGESIZE)

    assert not are_in(0, N) and not are_in(3, 4)
    for page in (3, 4, 6):
        memory[page * PAGESIZE + 100] = 1
    assert are_in(3, 5) and are_in(6, 7)
    assert not are_in(2, 5) and not are_in(3, 7) and not are_in(0, N)
    assert mapping.in_memory(0, 4 * PAGESIZE + 10, 4 * PAGESIZE + 20)


def test_of_another_part_there_is_nothing_to_say(stretch: tuple[Mapping, np.ndarray]) -> None:
    assert stretch[0].in_memory(1, 0, PAGESIZE)
