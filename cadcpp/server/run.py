"""The server's process."""

import socket

import uvicorn

from cadcpp.llama.llama import Llama
from cadcpp.server.app import make_app

_GRACE_S = 1  # for requests that are under way when the server ends


def serve(llama: Llama, name: str, api_key: str | None, listener: socket.socket) -> None:
    """Answer requests that come to ``listener`` until Ctrl-C."""
    app = make_app(llama, name, api_key)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE_S, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])
