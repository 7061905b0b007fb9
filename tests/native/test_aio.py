"""Replies for asyncio: the same text, and a session that survives being cancelled at any point."""

import _thread
import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.residency.memory_plan import make_plan
from cadcpp.runtime import aio
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import TreeLimits

N_CTX, ROWS, N = 256, 8, 20
SAMPLING = SamplingConfig(temperature=1.0, seed=4)
PROMPT = list(range(20, 70))


@pytest.fixture(scope="module")
def pair(tiny: Callable[..., Path]) -> tuple[Path, Path]:
    return tiny("llama", type_name="Q8_0", n_layer=8, n_embd=128, n_head=4, n_head_kv=2, n_ff=8192), tiny(
        "llama", noise=0.02, n_embd=64
    )


@pytest.fixture(scope="module", params=["in memory", "behind the wall", "taking turns"])
def session(request: pytest.FixtureRequest, pair: tuple[Path, Path]) -> Iterator[Session]:
    headers = read_header(pair[0]), read_header(pair[1])
    whole = make_plan(*headers, ram=1 << 40, n_ctx=N_CTX, rows=ROWS)
    ram = whole.fixed + whole.layout.pinned_bytes * 8 // 10 if request.param != "in memory" else None
    config = SessionConfig(
        n_ctx=N_CTX,
        n_threads=1,
        ram=ram,
        tree=TreeLimits(max_size=ROWS),
        fallback="none",
        pipeline=request.param != "taking turns",
    )
    with Session(*pair, config) as running:
        assert running.plan.streams == (ram is not None)
        yield running


def plain(session: Session, n: int = N) -> list[int]:
    return [t for chunk in session.stream(PROMPT, SAMPLING, n) for t in chunk.tokens]


@pytest.fixture(scope="module")
def whole(session: Session) -> list[int]:
    return plain(session)


async def read(session: Session, n: int = N) -> list[int]:
    return [t async for chunk in aio.stream(session, PROMPT, SAMPLING, n) for t in chunk.tokens]


def test_the_text_is_the_same(session: Session) -> None:
    assert asyncio.run(read(session)) == plain(session)


def test_the_loop_goes_on_meanwhile(session: Session) -> None:
    async def both() -> int:
        task, ticks = asyncio.create_task(read(session)), 0
        while not task.done():
            await asyncio.sleep(0)
            ticks += 1
        return ticks

    assert asyncio.run(both()) > 10


@pytest.mark.parametrize("seed", range(5))
def test_cancelling_at_any_point_leaves_the_session_right(session: Session, whole: list[int], seed: int) -> None:
    delays = random.Random(seed)

    async def cancelled() -> None:
        task = asyncio.create_task(read(session))
        await asyncio.sleep(delays.uniform(0, 0.3))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
            raise asyncio.CancelledError  # it was faster

    asyncio.run(cancelled())
    assert plain(session) == whole


@pytest.mark.parametrize("seed", range(5))
def test_ctrl_c_at_any_point_leaves_the_session_right(session: Session, whole: list[int], seed: int) -> None:
    timer = threading.Timer(random.Random(seed).uniform(0, 0.3), _thread.interrupt_main)
    with suppress(KeyboardInterrupt):
        timer.start()
        plain(session)
        timer.join()  # it was faster
        time.sleep(0.1)
    assert plain(session) == whole


def test_a_reader_that_leaves_early(session: Session) -> None:
    async def first() -> list[int]:
        async with aclosing(aio.stream(session, PROMPT, SAMPLING, N)) as chunks:
            async for chunk in chunks:
                return chunk.tokens
        return []

    got = asyncio.run(first())
    assert got and got == plain(session)[: len(got)]


def test_what_goes_wrong_reaches_the_reader(session: Session) -> None:
    async def wrong() -> None:
        async for _ in aio.stream(session, [], SAMPLING, 5):
            pass

    with pytest.raises(Exception, match="empty"):
        asyncio.run(wrong())
    assert plain(session)
