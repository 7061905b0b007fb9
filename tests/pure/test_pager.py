"""The pager's order of work on a mapping that only writes down what it is asked."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from cadcpp.residency.layout import CHUNK, ExpertLayer, Extent, Layout
from cadcpp.residency.streaming_pager import StreamingPager

MIB = 1 << 20


class FakeMapping:
    """Keeps account of what is resident; the largest streamed sum ever is ``peak``."""

    def __init__(self, pinned: tuple[Extent, ...], *, fail: bool = False) -> None:
        self._pinned = [(e.start, e.stop) for e in pinned]
        self._lock = threading.Lock()
        self.resident: set[tuple[int, int]] = set()
        self.reads = self.peak = 0
        self.fail = fail

    def will_need(self, part: int, start: int, stop: int) -> None:
        if self.fail:
            raise OSError("a disk that is gone")

    def populate(self, part: int, start: int, stop: int) -> None:
        with self._lock:
            self.resident.add((start, stop))
            self.reads += stop - start
            self.peak = max(self.peak, sum(b - a for a, b in self.resident if not self._is_pinned(a)))

    def drop(self, part: int, start: int, stop: int) -> None:
        with self._lock:
            self.resident = {(a, b) for a, b in self.resident if not (start <= a and b <= stop)}

    def in_memory(self, part: int, start: int, stop: int) -> bool:
        with self._lock:
            return any(a <= start and stop <= b for a, b in self.resident)

    def lock(self, part: int, start: int, stop: int) -> bool:
        return True

    copy = lock

    def unlock(self, part: int, start: int, stop: int) -> None:
        pass

    map_file = unlock

    def has(self, extent: Extent) -> bool:
        with self._lock:
            return all((c.start, c.stop) in self.resident for c in extent.chunks())

    def _is_pinned(self, start: int) -> bool:
        return any(a <= start < b for a, b in self._pinned)


NO_TOKENS = np.zeros(0, np.int32)


def layout(n_layers: int = 6, streamed: int = 8 * MIB, pinned: int = 4 * MIB) -> Layout:
    """Each layer: first a pinned stretch, then a streamed one."""
    size = streamed + pinned
    return Layout(
        n_layers + 1,
        tuple(Extent(0, i * size, i * size + pinned, i) for i in range(n_layers)),
        tuple(Extent(0, i * size + pinned, (i + 1) * size, i) for i in range(n_layers)) if streamed else (),
        (),
    )


@contextmanager
def running(plan: Layout, window: int = 20 * MIB, **options: Any) -> Iterator[tuple[StreamingPager, FakeMapping]]:
    mapping = FakeMapping(plan.pinned, **options)
    with closing(StreamingPager(cast(Any, mapping), plan, window)) as pager:
        yield pager, mapping


def one_pass(pager: StreamingPager, mapping: FakeMapping, plan: Layout, stop: int | None = None) -> None:
    """A decode that checks before each layer that all it needs is there."""
    pager.start_pass(NO_TOKENS)
    for layer in range(plan.n_layers - 1 if stop is None else stop):
        assert all(mapping.has(e) for e in (*plan.streamed, *plan.pinned) if e.layer == layer)
        pager.layer_done(layer)
    if stop is None:
        pager.end_pass(True)


def test_every_layer_finds_its_weights_and_a_pass_reads_them_once() -> None:
    plan = layout()
    with running(plan) as (pager, mapping):
        for _ in range(5):
            one_pass(pager, mapping, plan)
        # The next pass is begun already, up to the window.
        assert 0 <= pager.state().streamed_bytes - 5 * plan.streamed_bytes <= 20 * MIB
        assert mapping.reads <= 5 * plan.streamed_bytes + plan.pinned_bytes + 20 * MIB
        assert pager.state().pinned_bytes == plan.pinned_bytes


def test_streamed_bytes_in_memory_stay_within_the_window() -> None:
    plan = layout()
    with running(plan) as (pager, mapping):
        for _ in range(4):
            one_pass(pager, mapping, plan)
        assert mapping.peak <= 20 * MIB


def test_a_layer_larger_than_the_window_still_passes() -> None:
    plan = layout(streamed=32 * MIB)
    with running(plan, window=4 * MIB) as (pager, mapping):
        one_pass(pager, mapping, plan)


def test_a_pass_that_was_cut_short_leaves_the_next_one_whole() -> None:
    plan = layout()
    with running(plan) as (pager, mapping):
        for stop in (3, 0, 5, 1, 2):
            one_pass(pager, mapping, plan, stop)
            one_pass(pager, mapping, plan)


def test_a_batch_of_several_passes_is_followed() -> None:
    plan = layout()
    with running(plan) as (pager, mapping):
        pager.start_pass(NO_TOKENS)
        for _ in range(3):
            for layer in range(6):
                pager.layer_done(layer)
        pager.end_pass(True)
        assert pager.state().passes == 3


@pytest.mark.parametrize("n_bytes", [1, 5 * MIB, 24 * MIB, 1 << 40])
def test_borrowed_memory_is_taken_back(n_bytes: int) -> None:
    plan = layout()
    with running(plan) as (pager, mapping):
        one_pass(pager, mapping, plan)
        with pager.borrow(n_bytes):
            expected = max(plan.pinned_bytes - n_bytes, 0)
            assert pager.state().pinned_bytes <= expected
            one_pass(pager, mapping, plan)
            assert pager.state().pinned_bytes <= expected
        one_pass(pager, mapping, plan)
        assert pager.state().pinned_bytes == plan.pinned_bytes


def test_experts_lend_before_pinned_weights_do() -> None:
    """And get their room back."""
    plan = replace(layout(), experts=EXPERTS)
    mapping = FakeMapping(plan.pinned)
    with closing(StreamingPager(cast(Any, mapping), plan, 16 * MIB, 32 * CHUNK)) as pager:
        use_experts(pager)
        assert expert_bytes(mapping) == 31 * CHUNK  # beside what one row uses
        with pager.borrow(8 * CHUNK + 2 * MIB):
            use_experts(pager)
            assert expert_bytes(mapping) == 23 * CHUNK
            assert 0 < plan.pinned_bytes - pager.state().pinned_bytes < CHUNK + 2 * MIB
        use_experts(pager)
        assert expert_bytes(mapping) == 31 * CHUNK


@pytest.mark.parametrize("n_kept", [32, 48], ids=["a part of the experts", "all experts"])
def test_experts_go_where_memory_becomes_short_and_come_back(monkeypatch: pytest.MonkeyPatch, n_kept: int) -> None:
    """Before pinned weights do, which every pass needs; in the middle of a pass too."""
    monkeypatch.setattr("cadcpp.residency.streaming_pager._LOOK_S", 0.0)
    plan = replace(layout(), experts=EXPERTS)
    mapping, spare = FakeMapping(plan.pinned), 1 << 40
    paging = StreamingPager(cast(Any, mapping), plan, 16 * MIB, n_kept * CHUNK, pin="off", spare=lambda: spare)
    with closing(paging) as pager:
        use_experts(pager)
        whole = expert_bytes(mapping)
        assert whole >= (n_kept - 1) * CHUNK
        spare = n_kept * CHUNK + plan.pinned_bytes + 32 * MIB - 10 * CHUNK  # ten chunks less than there has to be
        pager.start_pass(NO_TOKENS)
        assert whole - 12 * CHUNK <= expert_bytes(mapping) <= whole - 10 * CHUNK
        assert pager.state().pinned_bytes == plan.pinned_bytes
        spare = 0
        use_experts(pager)
        assert expert_bytes(mapping) <= 16 * CHUNK and pager.state().pinned_bytes == 0
        spare = 1 << 40
        for _ in range(3):
            use_experts(pager)
        assert (expert_bytes(mapping), pager.state().pinned_bytes) == (whole, plan.pinned_bytes)


EXPERTS = tuple(ExpertLayer(n, 8, ((0, 200 * MIB + 8 * n * CHUNK, CHUNK),)) for n in range(6))


def use_experts(pager: StreamingPager) -> None:
    """A pass whose rows use all of them."""
    pager.start_pass(NO_TOKENS)
    for n in range(6):
        pager.experts_chosen(n, np.arange(8, dtype=np.int32)[:, None], 8)
        pager.layer_done(n)
    pager.end_pass(True)


def expert_bytes(mapping: FakeMapping) -> int:
    return sum(stop - start for start, stop in mapping.resident if start >= 200 * MIB)


def test_reserved_memory_stays_reserved() -> None:
    plan = layout()
    with running(plan) as (pager, mapping):
        one_pass(pager, mapping, plan)
        pager.reserve(6 * MIB)
        with pager.borrow(5 * MIB):
            one_pass(pager, mapping, plan)
            assert pager.state().pinned_bytes <= 13 * MIB
        for _ in range(2):
            one_pass(pager, mapping, plan)
        state = pager.state()
        assert 12 * MIB <= state.pinned_bytes <= 18 * MIB
        assert state.pinned_bytes + state.pass_bytes == 72 * MIB


def test_memory_can_be_borrowed_before_the_first_pass() -> None:
    plan = layout()
    with running(plan) as (pager, mapping):
        with pager.borrow(8 * MIB):
            one_pass(pager, mapping, plan)
        one_pass(pager, mapping, plan)
        assert pager.state().pinned_bytes == plan.pinned_bytes


def test_a_failing_disk_stops_the_pager_and_not_the_decode() -> None:
    plan = layout()
    with running(plan, fail=True) as (pager, _):
        pager.start_pass(NO_TOKENS)
        for layer in range(6):
            pager.layer_done(layer)
        pager.end_pass(True)


def test_nothing_to_stream_is_nothing_to_wait_for() -> None:
    plan = layout(streamed=0)
    with running(plan) as (pager, mapping):
        for _ in range(3):
            one_pass(pager, mapping, plan)
        assert mapping.reads == plan.pinned_bytes
