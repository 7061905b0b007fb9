"""Stretches of a line, beside sets of the points that they cover."""

import random

from cadcpp.util.intervals import outside, union


def some(rng: random.Random) -> list[tuple[int, int]]:
    starts = [rng.randrange(60) for _ in range(rng.randrange(8))]
    return [(start, start + rng.randrange(1, 9)) for start in starts]


def points(intervals: list[tuple[int, int]]) -> set[int]:
    return {n for start, stop in intervals for n in range(start, stop)}


def test_they_cover_what_sets_of_points_do() -> None:
    rng = random.Random(1)
    for _ in range(500):
        a, b = some(rng), some(rng)
        whole, left = union(a), outside(union(a), union(b))
        assert points(whole) == points(a) and points(left) == points(a) - points(b)
        for found in (whole, left):
            assert found == sorted(found) and all(start < stop for start, stop in found)
        assert all(one[1] < other[0] for one, other in zip(whole, whole[1:], strict=False))


def test_seconds_are_as_good_as_whole_numbers() -> None:
    assert union([(2.0, 3.0), (0.5, 1.0), (1.0, 1.5)]) == [(0.5, 1.5), (2.0, 3.0)]
    assert outside([(0.0, 4.0)], [(1.0, 1.5), (3.0, 9.0)]) == [(0.0, 1.0), (1.5, 3.0)]
