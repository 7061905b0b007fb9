"""What the soak run calls growth."""

import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from bench.measure import record
from bench.measure.resources import ResourceGrowth, Resources, used_bytes
from bench.studies import soak
from bench.studies.soak import Soak
from bench.studies.soak_request import Reply, Request
from cadcpp.config import SamplingConfig

MIB = 1 << 20


def held(
    n: int,
    own: Callable[[int], float] = lambda _: 300 * MIB,
    used: Callable[[int], float] = lambda _: 10 * MIB,
    objects: Callable[[int], float] = lambda _: 150_000,
    handles: Callable[[int], int] = lambda _: 20,
    threads: Callable[[int], int] = lambda _: 3,
) -> list[Resources]:
    """Sessions of half a minute."""
    return [
        Resources(30.0 * i, 0, int(own(i)), int(used(i)), int(objects(i)), handles(i), threads(i)) for i in range(n)
    ]


def test_noise_is_no_growth() -> None:
    rng = random.Random(1)
    grown = ResourceGrowth.of(held(40, lambda _: 300 * MIB + rng.randint(-20, 20) * MIB))
    assert grown.faults == [] and grown.mb_per_hour_error > 0


def test_what_comes_at_the_beginning_is_no_growth() -> None:
    assert ResourceGrowth.of(held(40, lambda i: 300 * MIB if i > 8 else 0)).faults == []
    assert ResourceGrowth.of(held(40, lambda i: (300 + min(i, 18)) * MIB)).faults == []


def test_what_is_in_use_may_not_grow_even_at_the_beginning() -> None:
    rng = random.Random(1)
    used = held(12, used=lambda i: (10 + i) * MIB + rng.randint(-MIB, MIB))
    objects = held(12, objects=lambda i: 150_000 + 5_000 * i)
    assert ResourceGrowth.of(used).faults == ["memory in use grows"]
    assert ResourceGrowth.of(objects).faults == ["objects grow"]
    assert ResourceGrowth.of(held(12, used=lambda i: 10 * MIB + rng.randint(-MIB, MIB))).faults == []
    unknown = held(12, own=lambda i: (300 + 2 * i) * MIB, used=lambda _: 0)  # another C library does not count
    assert ResourceGrowth.of(unknown).faults == ["memory grows"]


def test_what_is_in_use_is_counted() -> None:
    before = used_bytes()
    block = bytearray(50 * MIB)
    assert before == 0 or used_bytes() - before == pytest.approx(len(block), rel=0.02)


@pytest.mark.parametrize("noise", [0, 4])
def test_memory_that_grows_is_seen(noise: int) -> None:
    rng = random.Random(1)
    grown = ResourceGrowth.of(held(40, lambda i: 300 * MIB + i * MIB + rng.randint(-noise, noise) * MIB))
    assert grown.faults == ["memory grows"] and grown.mb_per_hour == pytest.approx(120 * 1.048, rel=0.2)


def test_a_little_that_stays_is_allowed() -> None:
    assert ResourceGrowth.of(held(40, lambda i: 300 * MIB + i * 50_000)).faults == []


def test_handles_and_threads() -> None:
    assert ResourceGrowth.of(held(40, handles=lambda i: 20 + i)).faults == ["handles grow"]
    assert ResourceGrowth.of(held(40, threads=lambda i: 3 + i // 10)).faults == ["threads grow"]
    assert ResourceGrowth.of(held(40, handles=lambda i: 20 + i % 3)).faults == []


def test_of_few_sessions_nothing_is_said() -> None:
    grown = ResourceGrowth.of(held(5, lambda i: i * 1000 * MIB, handles=lambda i: i))
    assert grown.faults == [] and grown.handles == (1, 4)
    assert ResourceGrowth.of([]) == ResourceGrowth()


@pytest.mark.parametrize(("plain", "n"), [([1, 2, 3], 0), ([1, 2, 4], 1), ([1, 2], 1)], ids=["same", "other", "short"])
def test_a_text_that_differs_is_a_fault(plain: list[int], n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(soak, "Session", lambda *_: nullcontext())
    monkeypatch.setattr(soak, "write", lambda *_: Reply(plain))
    monkeypatch.setattr(record, "append", lambda _name, line: told.append(line))
    run = Soak(random.Random(1), 1.0, soak.subject(mixture=False))
    run.sample.append(("auto", Request([5], SamplingConfig(), 3), Reply([1, 2, 3])))
    run.compare()
    summary = run.summary()
    assert (summary["compared"], summary["different"]) == (1, n) and run.sample == []
    assert summary["faults"] == ["a text differs"] * n and sum("different" in line for line in told) == n
