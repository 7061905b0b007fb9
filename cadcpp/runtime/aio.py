"""Replies for asyncio: the same stages as `Session.stream`, awaited instead of waited for."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from cadcpp.config import SamplingConfig
from cadcpp.runtime.session import Chunk, Session
from cadcpp.runtime.stages import Steps
from cadcpp.telemetry.progress import Progress
from cadcpp.telemetry.stats import Stats

T = TypeVar("T")


def stream(
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
    under way is ended, where weights are streamed within one layer, before the cancellation goes on.
    """
    return run(session.steps(prompt, sampling, n, stop=stop, stats=stats, progress=progress))


async def run(steps: Steps[T]) -> AsyncGenerator[T, None]:
    """The results of ``steps``, for a caller that awaits; `stages.run` for asyncio."""
    try:
        for step in steps:
            if isinstance(step, Future):
                await asyncio.wait((_awaited(step),))
            else:
                yield step
    finally:
        await _close(steps)


def _awaited(step: "Future[Any]") -> "asyncio.Future[Any]":
    """The future, for asyncio, which would complain of an error that nobody takes from it: ``steps`` does."""
    future = asyncio.wrap_future(step)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def _close(steps: Steps[T]) -> None:
    """End the stage under way; being cancelled once more does not make it end any sooner."""
    closing, cancelled = asyncio.ensure_future(asyncio.to_thread(steps.close)), False
    while not closing.done():
        try:
            await asyncio.wait((closing,))
        except asyncio.CancelledError:
            cancelled = True
    closing.result()
    if cancelled:
        raise asyncio.CancelledError
