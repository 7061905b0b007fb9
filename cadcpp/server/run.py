"""The server's process."""

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cadcpp.llama.llama import Llama
from cadcpp.server.app import make_app
from cadcpp.server.middleware import Guard

_GRACE_S = 1  # for requests that are under way when the server ends
_END_S = 10  # for them to say so, after that
_LOOK_S = 0.25


def serve(llama: Llama, name: str, api_key: str | None, listener: socket.socket, origins: tuple[str, ...] = ()) -> None:
    """Answer requests that come to ``listener`` until Ctrl-C."""
    app = make_app(llama, name, api_key, origins)
    config = uvicorn.Config(
        app,
        http=Protocol,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE_S + _END_S,
        lifespan="off",
    )
    _Server(config, app).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Tells requests that it ends, when their time is over: uvicorn would drop them in the middle of a word."""

    def __init__(self, config: uvicorn.Config, app: Guard) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        timer = asyncio.get_running_loop().call_later(_GRACE_S, self._app.end)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


class Protocol(H11Protocol):
    """A client that only ends its own side of the connection, as ``nc -N`` does, still gets its answer.

    The system tells that apart from a client that is gone only when something is sent to it. So it is sent an interim
    answer, which HTTP's clients leave out of account, and the connection's errors are looked at from then on.
    """

    def eof_received(self) -> bool | None:  # type: ignore[override]
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return None
        cycle.keep_alive = False
        if not cycle.response_started:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._look()
        return True

    def _look(self) -> None:
        if self.transport.is_closing() or self.cycle is None or self.cycle.response_complete:
            return
        connection: Any = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        self.loop.call_later(_LOOK_S, self._look)
