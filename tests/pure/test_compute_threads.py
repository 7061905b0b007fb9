"""How the number of threads follows the load."""

import pytest

from cadcpp.runtime.compute_threads import ComputeThreads, thread_counts


class FakeLoad:
    """Others keep so many CPUs busy, one number a look."""

    n_cpus, seconds = 4, 1.0

    def __init__(self, *busy: float) -> None:
        self._busy = iter(busy)

    def busy(self) -> float:
        return next(self._busy)


class FakeContext:
    n_threads = 4

    def use_threads(self, n: int) -> None:
        self.n_threads = n


def follow(*busy: float, n: int = 4, counts: tuple[int, ...] = (1, 2, 3, 4)) -> list[int]:
    """Numbers of threads after each look."""
    threads, context = ComputeThreads(n, counts, FakeLoad(*busy)), FakeContext()  # type: ignore[arg-type]
    threads.contexts.append(context)
    found = []
    for _ in busy:
        before, changed = threads.n, threads.follow()
        assert changed == (threads.n != before)
        assert context.n_threads == threads.n or not threads.changed
        found.append(threads.n)
    return found


@pytest.mark.parametrize(
    ("busy", "n"),
    [
        pytest.param((0.0, 0.5, 0.1), [4, 4, 4], id="idle"),
        pytest.param((1.0, 1.0), [3, 3], id="one neighbour"),
        pytest.param((4.0, 4.0), [1, 1], id="one thread in any case"),
        pytest.param((2.0, 0.0, 0.0), [2, 2, 4], id="idle again"),
        pytest.param((2.0, 0.0, 2.0, 0.0, 0.0), [2, 2, 2, 2, 4], id="idle for a moment"),
        pytest.param((1.0, 2.0, 3.0), [3, 2, 1], id="more and more"),
    ],
)
def test_threads_follow_what_others_leave(busy: tuple[float, ...], n: list[int]) -> None:
    assert follow(*busy) == n


def test_only_numbers_that_are_known_to_round_alike_are_taken() -> None:
    assert follow(1.0, 3.0, counts=(1, 2, 4)) == [2, 1]
    assert follow(4.0, n=3, counts=(2, 3)) == [2]
    assert follow(4.0, counts=()) == [4]


def test_it_looks_once_a_second() -> None:
    load = FakeLoad(4.0)
    load.seconds = 0.5
    threads = ComputeThreads(4, (1, 4), load)  # type: ignore[arg-type]
    assert not threads.follow() and threads.n == 4
    load.seconds = 1.5
    assert threads.follow() and threads.n == 1


def test_numbers_to_change_between() -> None:
    assert thread_counts(2, 2) == (1, 2)
    assert thread_counts(3, 4) == (1, 2, 3, 4)
    assert thread_counts(5, 8) == (1, 4, 5, 7, 8)
    assert thread_counts(1, 1) == (1,)
