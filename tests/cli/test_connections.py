"""What becomes of connections that end: by halves, altogether, or with the server."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("starlette", reason="the extra `server` is not installed")

from tests.support.server import Server, serving  # noqa: E402

LONG = {"max_tokens": 1900, "min_tokens": 1900}


@pytest.fixture(scope="module")
def server(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(log, "-m", tiny(type_name="Q8_0"), "--ctx", 2048, "--threads", 1) as running:
        yield running


def send(server: Server, **body: Any) -> socket.socket:
    """A request on a connection of its own."""
    content = json.dumps({"prompt": "abc", "temperature": 0, **body}).encode()
    port = int(server.url.split(":")[2].split("/")[0])
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def wait_until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.01)


def rest(connection: socket.socket) -> str:
    """All that comes until the server ends the connection."""
    found = b""
    with connection:
        while piece := connection.recv(1 << 16):
            found += piece
    return found.decode()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_ends_its_own_side_gets_its_answer(server: Server, stream: bool) -> None:
    connection = send(server, max_tokens=8, stream=stream)
    connection.shutdown(socket.SHUT_WR)
    answer = rest(connection)
    assert "HTTP/1.1 200 OK" in answer and ("data: [DONE]" if stream else '"usage"') in answer


def test_a_client_that_is_gone_is_not_worked_for(server: Server) -> None:
    send(server, **LONG).close()
    connection = send(server, max_tokens=2)
    connection.shutdown(socket.SHUT_WR)
    assert '"usage"' in rest(connection)
    assert server.process.poll() is None


def test_a_stream_that_the_servers_end_cuts_short_says_so(server: Server) -> None:
    """The last one: it ends the server."""
    stream = send(server, stream=True, **LONG)
    assert stream.recv(1 << 12).startswith(b"HTTP/1.1 200 OK") and stream.recv(1 << 12)
    waiting = send(server, **LONG)
    wait_until(lambda: "requests_deferred 1" in httpx.get(f"{server.url.removesuffix('/v1')}/metrics").text)
    server.process.send_signal(signal.SIGTERM)
    events = rest(stream)
    assert json.loads(events.split("data: ")[-1].split("\n")[0])["error"]["message"] == "the server is ending"
    assert "503" in rest(waiting)
    server.process.wait(60)
