"""Memory that a library has just allocated and filled with zeros, which need no memory before they change."""

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import numpy as np
from numpy.ctypeslib import as_array
from numpy.typing import NDArray

from cadcpp.system.heap import empty, trim_heap
from cadcpp.system.mapping import memory_map, pages_in_memory
from cadcpp.util.intervals import outside, union

_LEAST = 1 << 20  # bytes of zeros that are looked at
_PIECE = 4 << 20  # bytes of which is asked at once what is in memory
_SLACK = max(64 << 10, 4 * mmap.PAGESIZE)  # bytes that a buffer may differ from what is expected
_NOHUGEPAGE = 15  # MADV_NOHUGEPAGE
_libc = ctypes.CDLL(None)

Range = tuple[int, int]  # addresses from ... to ...


class Freed:
    """Whether what was expected went back."""

    done = False


@contextmanager
def zeros_freed(expected: int) -> Iterator[Freed]:
    """A buffer of ``expected`` bytes that comes inside, full of zeros, needs no memory until it is written to.

    Or two that have as many together. A zero that goes is a zero when it comes again, so that contents do not change.
    Other threads may be filling buffers of their own meanwhile: none is touched that is not of just that size.
    """
    freed = Freed()
    if expected < _LEAST:
        yield freed
        return
    trim_heap()  # what is allocated anew may have been used and freed before
    before = list(_in_memory())
    yield freed
    found = [run for new in outside(_in_memory(), before) for run in _zeros(*new)]
    for start, stop in _matching(found, expected):
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _NOHUGEPAGE)
        empty(start, stop - start)
        freed.done = True


def _matching(ranges: list[Range], expected: int) -> tuple[Range, ...]:
    """One of them, or two, with as many bytes together."""
    for some in [*combinations(ranges, 1), *combinations(ranges, 2)]:
        if abs(sum(stop - start for start, stop in some) - expected) <= _SLACK:
            return some
    return ()


def _in_memory() -> Iterator[Range]:
    """Private pages of this process that may be written to, are no file's, and are in memory; in order."""
    for start, stop, fields in memory_map():
        if fields[1] == "rw-p" and fields[4] == "0":
            pieces = ((low, min(low + _PIECE, stop)) for low in range(start, stop, _PIECE))
            yield from union(found for piece in pieces for found in _of(*piece))


def _of(start: int, stop: int) -> Iterator[Range]:
    """Of a short stretch what is in memory: to look takes memory as well, which must not come from where it looks."""
    return _where(pages_in_memory(start, stop - start, otherwise=False), start, mmap.PAGESIZE)


def _zeros(start: int, stop: int) -> Iterator[Range]:
    """Pages one after the other that hold nothing else, where they are many."""
    if stop - start >= _LEAST:
        words = as_array((ctypes.c_uint64 * ((stop - start) // 8)).from_address(start))
        yield from _where(np.asarray(~words.reshape(-1, mmap.PAGESIZE // 8).any(axis=1)), start, _LEAST)


def _where(are: NDArray[np.bool_], start: int, least: int) -> Iterator[Range]:
    """Address ranges, of ``least`` bytes or more, of the pages from ``start`` on that are so."""
    changes = np.flatnonzero(np.diff(np.concatenate(([False], are, [False])).astype(np.int8)))
    for first, last in (changes.reshape(-1, 2) * mmap.PAGESIZE).tolist():
        if last - first >= least:
            yield start + first, start + last
