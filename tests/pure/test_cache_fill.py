"""KV caches take memory as a text fills them: what plans say of it, and what becomes of zeros."""

import ctypes
import mmap

import numpy as np
import psutil
import pytest

from bench.predict.devices import ARCHITECTURES
from bench.predict.forecast import header_of
from cadcpp.models.catalog import pairs
from cadcpp.residency.cache_fill import CacheFill
from cadcpp.residency.memory_plan import Plan, make_plan
from cadcpp.system.fresh_memory import zeros_freed

GB, MIB = 10**9, 1 << 20
DENSE, DRAFT = (header_of(entry, ARCHITECTURES[entry.name]) for entry in pairs()["qwen3-14b"].models[::-1])


def planned(ram: int, *, fills: bool) -> Plan:
    return make_plan(DENSE, DRAFT, ram=ram, n_ctx=4096, rows=16, fills=fills)


def test_weights_give_back_what_a_text_has_reached() -> None:
    fill = CacheFill(unfilled=1000 * 768, cell_bytes=1000.0, n_cells=1024)
    taken = []
    for n in (1, 256, 257, 100, 600, 1023, 5000):
        fill.reach(n)
        taken.append(fill.taken)
    assert taken == [0, 0, 256_000, 256_000, 512_000, 768_000, 768_000]
    assert CacheFill().taken == 0


def test_caches_that_are_taken_at_once_lend_nothing() -> None:
    fill = CacheFill(unfilled=1000 * 768, cell_bytes=1000.0, n_cells=1024)
    fill.fill()
    assert fill.taken == 768_000


def test_a_plan_keeps_more_weights_while_a_text_is_short() -> None:
    now, full = planned(6 * GB, fills=True), planned(6 * GB, fills=False)
    assert full.unfilled == 0 and 0.9 < now.unfilled / (now.cache + now.draft_cache) < 1
    assert now.unfilled == int(now.cell_bytes * (4096 - 256))
    gained = now.layout.pinned_bytes - full.layout.pinned_bytes
    assert gained == pytest.approx(now.unfilled, rel=0.1) and now.read_bytes < full.read_bytes - 0.9 * gained
    assert now.least == full.least and abs(now.peak - full.peak) < 8 * MIB
    assert now.peak <= now.ram - now.margin + now.margin // 8


@pytest.mark.parametrize("short", [0.3, 0.01])
def test_where_weights_nearly_fit_some_are_streamed_all_the_same(short: float) -> None:
    """Else nothing could be streamed when the caches fill."""
    whole = planned(60 * GB, fills=True)
    assert whole.unfilled == 0 and not whole.streams
    missing = int(short * (whole.cache + whole.draft_cache))
    plan = planned(whole.fixed + whole.layout.pinned_bytes - missing, fills=True)
    assert plan.layout.streamed_bytes > 0 and plan.window > 0 and plan.unfilled <= missing // 2 + MIB


def test_too_little_memory_is_too_little_whatever_a_text_fills() -> None:
    least = planned(6 * GB, fills=True).least
    assert planned(least, fills=True).unfilled > 0
    with pytest.raises(ValueError, match="are too few"):
        planned(least - MIB, fills=True)


def block(n_bytes: int, value: int) -> mmap.mmap:
    made = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(made)), value, n_bytes)
    return made


def test_zeros_that_were_just_written_go_back_and_stay_zeros() -> None:
    with zeros_freed(64 * MIB) as freed:
        made = block(64 * MIB, 0)
        resident = psutil.Process().memory_info().rss
    assert freed.done and resident - psutil.Process().memory_info().rss > 60 * MIB
    words = np.frombuffer(made, np.uint64)
    assert not words.any()


def test_two_buffers_that_have_as_much_together_are_found() -> None:
    with zeros_freed(50 * MIB) as freed:
        made = [block(n * MIB, 0) for n in (20, 7, 30)]
        for one in made:
            one[0] = 1  # as a heap's own notes stand between its blocks
        resident = psutil.Process().memory_info().rss
    assert freed.done and resident - psutil.Process().memory_info().rss == pytest.approx(50 * MIB, rel=0.02)
    assert [np.count_nonzero(np.frombuffer(one, np.uint8)) for one in made] == [1, 1, 1]


@pytest.mark.parametrize(("n_bytes", "value"), [(63 * MIB, 0), (65 * MIB, 0), (64 * MIB, 1)])
def test_buffers_of_another_size_or_with_other_values_are_left_alone(n_bytes: int, value: int) -> None:
    """Somebody else's may be, which are being filled just now."""
    with zeros_freed(64 * MIB) as freed:
        made = block(n_bytes, value)
        resident = psutil.Process().memory_info().rss
    assert not freed.done and resident - psutil.Process().memory_info().rss < MIB
    assert made[5] == value


def test_a_page_with_another_value_stays() -> None:
    with zeros_freed(64 * MIB) as freed:
        made = block(64 * MIB + 2 * mmap.PAGESIZE, 0)
        made[0], made[64 * MIB + mmap.PAGESIZE] = 7, 9
    assert freed.done and (made[0], made[64 * MIB + mmap.PAGESIZE]) == (7, 9)
    assert np.count_nonzero(np.frombuffer(made, np.uint8)) == 2


def test_memory_from_before_is_not_looked_at() -> None:
    made = block(64 * MIB, 0)
    with zeros_freed(64 * MIB) as freed:
        pass
    assert not freed.done and made[0] == 0
