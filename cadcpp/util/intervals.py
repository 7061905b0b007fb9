"""Stretches of a line, each from ... up to ..."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

Number = TypeVar("Number", int, float)


def union(intervals: Iterable[tuple[Number, Number]]) -> list[tuple[Number, Number]]:
    """What some intervals cover: in order, and without overlaps or neighbours."""
    merged: list[tuple[Number, Number]] = []
    for start, stop in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def outside(
    intervals: Iterable[tuple[Number, Number]], others: Sequence[tuple[Number, Number]]
) -> list[tuple[Number, Number]]:
    """What of some intervals no other one covers; both in order and without overlaps."""
    left: list[tuple[Number, Number]] = []
    at = 0
    for start, stop in intervals:
        while at < len(others) and others[at][1] <= start:
            at += 1
        for i in range(at, len(others)):
            low, high = others[i]
            if low >= stop:
                break
            if low > start:
                left.append((start, low))
            start = max(start, high)
        if start < stop:
            left.append((start, stop))
    return left
