"""The reading thread, on a mapping that only writes down what it is asked."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, cast

import pytest

from cadcpp.errors import ModelError
from cadcpp.residency.layout import Extent
from cadcpp.residency.prefetcher import Prefetcher
from cadcpp.residency.read_queue import ReadQueue

SIZE, N_LAYERS = 10, 3
CHUNKS = [Extent(0, i * SIZE, (i + 1) * SIZE, i) for i in range(N_LAYERS)]


class Disk:
    """Reads what it is asked to; ``broken`` is the chunk that it cannot read, ``gate`` what it waits for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.broken: int | None = None
        self.may_lock, self.gate = 99, threading.Event()
        self.gate.set()

    def will_need(self, part: int, start: int, stop: int) -> None:
        self.calls.append(("ask", start))

    def populate(self, part: int, start: int, stop: int) -> None:
        self.gate.wait()
        if start == self.broken:
            raise ModelError("broken")
        self.calls.append(("read", start))

    def drop(self, part: int, start: int, stop: int) -> None:
        self.calls.append(("drop", start))

    def lock(self, part: int, start: int, stop: int) -> bool:
        self.calls.append(("lock", start))
        self.may_lock -= 1
        return self.may_lock >= 0

    def done(self, what: str) -> list[int]:
        return [start for call, start in self.calls if call == what]


@contextmanager
def running(disk: Disk, *, stay: bool = False, **options: Any) -> Iterator[tuple[Prefetcher, dict[Extent, bool]]]:
    """All chunks are streamed, or all are to ``stay``; what stays, and whether it is locked."""
    kept: dict[Extent, bool] = {}
    queue = ReadQueue(lambda: [(c, stay) for c in CHUNKS if c not in kept], N_LAYERS, 2 * SIZE, ahead=False)
    reads = Prefetcher(cast(Any, disk), queue, kept.__setitem__, **options)
    with closing(reads):
        yield reads, kept


def one_pass(reads: Prefetcher) -> None:
    reads.start_pass()
    for layer in range(N_LAYERS):
        reads.wait_for(layer)
        reads.layer_done(layer)
    reads.end_pass()


def test_every_layer_is_asked_for_read_and_dropped_in_order() -> None:
    disk = Disk()
    with running(disk) as (reads, kept):
        one_pass(reads)
        one_pass(reads)
        assert reads.streamed_bytes == 6 * SIZE and reads.n_passes == 2
    order = [chunk.start for chunk in CHUNKS]
    assert disk.done("ask") == disk.done("read") == order * 2
    assert set(disk.done("drop")) <= set(order) and not kept and not disk.done("lock")


def test_huge_ranges_are_not_asked_for() -> None:
    disk = Disk()
    with running(disk, huge=True) as (reads, _):
        one_pass(reads)
    assert disk.done("ask") == [] and len(disk.done("read")) == N_LAYERS


@pytest.mark.parametrize(("may", "left", "tried"), [(True, 99, 3), (True, 1, 2), (True, 0, 1), (False, 99, 0)])
def test_what_stays_is_locked_until_that_fails_once(may: bool, left: int, tried: int) -> None:
    disk = Disk()
    disk.may_lock = left
    with running(disk, stay=True, keep=disk.lock if may else None) as (reads, kept):
        one_pass(reads)
        one_pass(reads)
    assert list(kept) == CHUNKS and sum(kept.values()) == min(left if may else 0, 3)
    assert len(disk.done("lock")) == tried
    assert len(disk.done("read")) == N_LAYERS and reads.streamed_bytes == 0


def test_who_waits_is_told_of_a_read_error_and_can_try_again() -> None:
    disk = Disk()
    disk.broken = CHUNKS[1].start
    with running(disk) as (reads, _):
        for _ in range(2):
            with pytest.raises(ModelError, match="broken"):
                one_pass(reads)
        disk.broken = None
        one_pass(reads)


def test_a_wait_is_seen_from_outside() -> None:
    disk = Disk()
    with running(disk) as (reads, _):
        assert not reads.wait_for_stall(0) and reads.waiting_seconds == 0
        disk.gate.clear()
        waits = threading.Thread(target=one_pass, args=(reads,))
        waits.start()
        assert reads.wait_for_stall(60) and reads.waiting_seconds > 0
        disk.gate.set()
        waits.join()
        assert not reads.wait_for_stall(0) and reads.stall_seconds > 0


def test_nothing_is_on_its_way_while_it_stands_still() -> None:
    disk = Disk()
    with running(disk) as (reads, _):
        reads.start_pass()
        with reads.standing_still() as queue:
            before = list(disk.calls)
            assert not queue.asked and disk.done("ask") == disk.done("read")
        assert before == disk.calls[: len(before)]
        for layer in range(N_LAYERS):
            reads.wait_for(layer)
        assert disk.done("read") == [chunk.start for chunk in CHUNKS]


def test_a_thread_that_fails_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    disk.will_need = lambda *_: 1 / 0  # type: ignore[method-assign,assignment]
    with running(disk) as (reads, _):
        one_pass(reads)
        with reads.standing_still():
            pass
    assert "the kernel pages on its own" in caplog.text


def test_where_nothing_is_streamed_the_reading_thread_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take a core from the threads that compute, once a layer."""
    with running(Disk(), stay=True) as (reads, kept):
        one_pass(reads)
        one_pass(reads)
        assert len(kept) == N_LAYERS
        notify, woken, mine = reads.lock.notify_all, list[int](), threading.get_ident()

        def noting() -> None:
            woken.extend([1] * (threading.get_ident() == mine))
            notify()

        monkeypatch.setattr(reads.lock, "notify_all", noting)
        reads.start_pass()
        for layer in range(N_LAYERS):
            reads.wait_for(layer)
            reads.layer_done(layer)
        assert len(woken) == 1  # for the order of the pass
