"""What stands before the application: it checks clients, notices that one is gone, reports failures, and ends."""

import asyncio
import json

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cadcpp.server.access import Access, limited
from cadcpp.server.errors import describe, shaped


class Guard:
    """Middleware. A request whose client goes away is cancelled; one that fails is answered, streams as well.

    A body may have ``n_bytes``. A server without a key answers this machine alone.
    """

    def __init__(self, app: ASGIApp, n_bytes: int, access: Access) -> None:
        self.app, self._n_bytes, self.access = app, n_bytes, access
        self._under_way: set[anyio.CancelScope] = set()
        self._ending = False

    def end(self) -> None:
        """End all requests that are under way, and say so to their clients."""
        self._ending = True
        for scope in self._under_way:
            scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reply = _Reply(send, self.access.allowed(headers))
        try:
            if scope["method"] == "OPTIONS" and (allowed := self.access.preflight(headers)) is not None:
                await _preflight(allowed, scope, receive, send)
                return
            self.access.check_sender(headers)
            receive = limited(receive, headers, self._n_bytes)
            await self._while_wanted(scope, receive, reply.send)
            await reply.end()
        except asyncio.CancelledError:  # which uvicorn would report as an error of the application's
            await reply.fail(HTTPException(503, "the server is ending"), scope, receive)
        except Exception as error:
            await reply.fail(error, scope, receive)

    async def _while_wanted(self, scope: Scope, receive: Receive, send: Send) -> None:
        into, messages = anyio.create_memory_object_stream[Message](0)
        async with into, messages, anyio.create_task_group() as group:
            self._under_way.add(group.cancel_scope)
            try:
                group.start_soon(_pass_on, receive, into, group.cancel_scope)
                await self.app(scope, messages.receive, send)
                group.cancel_scope.cancel()
            finally:
                self._under_way.discard(group.cancel_scope)
                if self._ending:
                    raise HTTPException(503, "the server is ending")


async def _preflight(headers: list[tuple[bytes, bytes]], scope: Scope, receive: Receive, send: Send) -> None:
    answer = Response(status_code=204)
    answer.raw_headers.extend(headers)
    await answer(scope, receive, send)


async def _pass_on(receive: Receive, into: MemoryObjectSendStream[Message], work: anyio.CancelScope) -> None:
    while (message := await receive())["type"] != "http.disconnect":
        await into.send(message)
    work.cancel()


class _Reply:
    """What one client gets. A start without a body, and an end, wait: until then it may become an error."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send, self._headers = send, headers
        self._waiting: list[Message] = []
        self._started = self._events = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._events = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
            message = {**message, "headers": [*message["headers"], *self._headers]}
        self._waiting.append(message)
        if message.get("body") and message.get("more_body"):
            await self.end()
            self._started = True

    async def end(self) -> None:
        """Send what waits."""
        for message in self._waiting:
            await self._send(message)
        self._waiting.clear()

    async def fail(self, error: Exception, scope: Scope, receive: Receive) -> None:
        """Say what went wrong: in a body of its own, or as a stream's last event or line."""
        status, what = describe(error)
        shape = shaped(scope["path"], what, status)
        if not self._started:
            answer = JSONResponse(shape, status)
            answer.raw_headers.extend(self._headers)
            await answer(scope, receive, self._send)
            return
        told = json.dumps(shape)
        piece = f"data: {told}\n\n" if self._events else f"{told}\n"
        await self._send({"type": "http.response.body", "body": piece.encode(), "more_body": False})
