"""Answers that are sent piece by piece."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import anyio
from starlette.types import Receive, Scope, Send

from cadcpp.server.json_answer import as_json

_PING_S = 15.0  # after so long without a word, a proxy may take a connection for dead


def event(chunk: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + as_json(chunk) + b"\n\n"


def line(chunk: Any) -> bytes:
    """A line of JSON."""
    return as_json(chunk) + b"\n"


class Stream:
    """An ASGI answer out of chunks: events (SSE), or lines."""

    def __init__(
        self, chunks: AsyncGenerator[Any, None], write: Callable[[Any], bytes] = event, end: bytes = b""
    ) -> None:
        self._chunks, self._write, self._end = chunks, write, end

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        kind = b"text/event-stream; charset=utf-8" if self._write is event else b"application/x-ndjson"
        headers = [(b"content-type", kind), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": self._end, "more_body": False})

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        ping = b": still here\n\n" if self._write is event else None
        async with aclosing(_with_pauses(self._chunks)) as chunks:
            async for chunk in chunks:
                if chunk is not None:
                    yield self._write(chunk)
                elif ping is not None:
                    yield ping


async def _with_pauses(chunks: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """The chunks, and None whenever there was none for long. Closing it ends what is under way."""
    pending: asyncio.Future[Any] | None = None
    async with aclosing(chunks):
        try:
            while True:
                pending = pending or asyncio.ensure_future(_next(chunks))
                done, _ = await asyncio.wait((pending,), timeout=_PING_S)
                if not done:
                    yield None
                    continue
                chunk, pending = pending.result(), None
                if chunk is None:
                    return
                yield chunk
        finally:
            if pending is not None:
                pending.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait((pending,))


async def _next(chunks: AsyncIterator[Any]) -> Any:
    return await anext(chunks, None)
