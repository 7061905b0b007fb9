"""What upstream's application lacks towards its clients: it checks them, notices that one is gone, reports failures."""

import asyncio
import json

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cadcpp.server.access import check_sender, limited
from cadcpp.server.errors import describe


class Guard:
    """Middleware. A request whose client goes away is cancelled; one that fails is answered, streams as well.

    A body may have ``n_bytes``. An ``open`` server, one without a key, answers this machine alone.
    """

    def __init__(self, app: ASGIApp, n_bytes: int, open: bool) -> None:
        self._app, self._n_bytes, self._open = app, n_bytes, open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply, headers = _Reply(send), Headers(scope=scope)
        try:
            if self._open:
                check_sender(headers)
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
            group.start_soon(_pass_on, receive, into, group.cancel_scope)
            await self._app(scope, messages.receive, send)
            group.cancel_scope.cancel()


async def _pass_on(receive: Receive, into: MemoryObjectSendStream[Message], work: anyio.CancelScope) -> None:
    while (message := await receive())["type"] != "http.disconnect":
        await into.send(message)
    work.cancel()


class _Reply:
    """What one client gets. A start without a body, and an end, wait: until then it may become an error."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: list[Message] = []
        self._started = False

    async def send(self, message: Message) -> None:
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
        """Say what went wrong: in a body of its own, or as a stream's last event."""
        status, what = describe(error)
        if not self._started:
            await JSONResponse({"error": what}, status)(scope, receive, self._send)
            return
        event = f"data: {json.dumps({'error': what})}\n\n".encode()
        await self._send({"type": "http.response.body", "body": event, "more_body": False})
