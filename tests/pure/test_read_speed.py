"""What counts as reading, and how long it counts."""

from collections.abc import Callable

import numpy as np
import pytest

from cadcpp.residency.read_speed import PassReads, ReadSpeed

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


def passes(seconds: Callable[[float], float], *, spread: float = 0.5, n: int = 60) -> PassReads:
    """As many as text has, of 20 MB more or less, on a disk that takes so long for a pass's bytes."""
    reads, rng = PassReads(), np.random.default_rng(4)
    for size in np.maximum(rng.normal(20e6, spread * 20e6, n), 1e6):
        reads.add(size, seconds(size))
    return reads


def expected(reads: PassReads, n_bytes: float) -> float:
    return float(reads.seconds(np.array([n_bytes]), 7.0)[0])


def test_bytes_take_as_long_as_the_disk_did_on_average() -> None:
    for spread in (0.5, 0.0):
        reads = passes(lambda n: n / 100e6, spread=spread)
        assert [expected(reads, n) for n in (0.0, 20e6, 80e6)] == pytest.approx([0.0, 0.2, 0.8], abs=1e-9)


def test_a_disk_that_catches_up_takes_all_of_its_time_for_further_bytes() -> None:
    """100 MB a second, and at once what it could have read in the 0.1 s before; the mean would say 0.2 s for 40 MB."""
    reads = passes(lambda n: max(n / 100e6 - 0.1, 0.0))
    assert expected(reads, 20e6) == pytest.approx(0.1, abs=0.02)
    assert expected(reads, 40e6) == pytest.approx(0.3, rel=0.15) and expected(reads, 2e6) == 0.0


def test_reads_that_wait_before_they_begin_are_no_dearer_by_the_byte() -> None:
    reads = passes(lambda n: 0.05 + n / 1e9)
    assert 0.13 < expected(reads, 80e6) < 0.18  # the mean: 0.28


def test_before_the_first_pass_a_byte_takes_what_is_said() -> None:
    assert expected(PassReads(), 3.0) == 21.0


def test_passes_fade() -> None:
    reads = passes(lambda n: n / 1e9)
    for _ in range(100):
        reads.add(20e6, 0.2)
    assert expected(reads, 20e6) == pytest.approx(0.2, rel=0.02)
