"""Replies for asyncio: the same rounds as `Session.stream`, on a thread of their own."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from cadcpp.cache import Progress
from cadcpp.config import SamplingConfig
from cadcpp.session import Chunk, Session
from cadcpp.stats import Stats


class Cancelled(Exception):
    """Ends a pass whose reader has gone."""


async def stream(
    session: Session,
    prompt: Sequence[int],
    sampling: SamplingConfig,
    n: int,
    *,
    stop: Sequence[str] = (),
    stats: Stats | None = None,
    progress: Progress | None = None,
) -> AsyncGenerator[Chunk, None]:
    """`Session.stream` with ``async for``. One reply at a time per session.

    Cancelling it, or closing it, at any await leaves the session ready for the next reply: a pass that is
    under way is ended, behind the wall within one layer, before the cancellation goes on.
    """
    gone = False

    def watch(done: int, total: int) -> None:
        if gone:
            raise Cancelled
        if progress is not None:
            progress(done, total)

    loop = asyncio.get_running_loop()
    chunks = session.stream(prompt, sampling, n, stop=stop, stats=stats, progress=watch)
    with ThreadPoolExecutor(1, "cadcpp-rounds") as executor:
        try:
            while True:
                round_ = loop.run_in_executor(executor, next, chunks, None)
                try:
                    chunk = await asyncio.shield(round_)
                except asyncio.CancelledError:
                    gone = True
                    with suppress(Cancelled):
                        await round_
                    raise
                if chunk is None:
                    return
                yield chunk
        finally:
            gone = True
            await loop.run_in_executor(executor, chunks.close)
