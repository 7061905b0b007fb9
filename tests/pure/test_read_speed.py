"""What counts as reading, and how long it counts."""

import pytest

from cadcpp.residency.read_speed import ReadSpeed

MIB = 1 << 20


def test_before_the_first_read_nothing_is_known() -> None:
    speed = ReadSpeed()
    speed.start(5.0)
    assert speed.byte_seconds == 0.0


def test_the_time_without_work_does_not_count() -> None:
    speed = ReadSpeed()
    for now in (10.0, 500.0):
        speed.start(now)
        speed.finish(now + 2.0, 4 * MIB)
    assert speed.byte_seconds == pytest.approx(2.0 / (4 * MIB))


def test_reads_that_overlap_count_from_the_end_of_the_one_before() -> None:
    speed = ReadSpeed()
    speed.start(0.0)
    for end in (1.0, 2.0, 3.0):
        speed.finish(end, MIB)
    assert speed.byte_seconds == pytest.approx(1.0 / MIB)


def test_older_reads_fade() -> None:
    speed = ReadSpeed()
    speed.start(0.0)
    for i in range(1000):
        speed.finish(i + 1.0, MIB)
    now = 1000.0
    found = []
    for _ in range(300):
        now += 0.1
        speed.finish(now, MIB)
        found.append(speed.byte_seconds * MIB)
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(0.991, abs=1e-3)  # one read is a hundredth of what counts
    assert found[-1] == pytest.approx(0.1 + 0.9 * 0.99**300, rel=1e-3)
