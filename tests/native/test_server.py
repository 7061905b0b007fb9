"""The server's application in this process, where the passes of a request can be counted."""

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")

from cadcpp import Llama  # noqa: E402
from cadcpp.engine import Round  # noqa: E402
from cadcpp.server.app import make_app  # noqa: E402

N_CTX = 2048
LONG = {"max_tokens": N_CTX - 10, "min_tokens": N_CTX - 10}


class Rounds:
    """Counts the passes of the model, and sets an event at the first of them."""

    def __init__(self) -> None:
        self.n = 0
        self.first = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, _round: Round) -> None:
        self.n += 1
        self._loop.call_soon_threadsafe(self.first.set)


@pytest.fixture(scope="module")
def llama(tiny: Callable[..., Path]) -> Iterator[Llama]:
    path = str(tiny("llama", type_name="Q8_0", chat_template="{{ messages[0]['content'] }}"))
    with Llama(path, n_ctx=N_CTX, n_threads=1, speculative="off", verbose=False) as made:
        yield made


@pytest.fixture(scope="module")
def app(llama: Llama) -> Any:
    return make_app(llama, "tiny")


class Client:
    """One request, and what comes back; it may go away."""

    def __init__(self, app: Any, path: str = "/v1/completions", method: str = "POST", **body: Any) -> None:
        content = json.dumps({"prompt": "abc", "temperature": 0, **body}).encode()
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._inbox.put_nowait({"type": "http.request", "body": content, "more_body": False})
        self.sent: list[dict[str, Any]] = []
        headers = [(b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "scheme": "http",
            "http_version": "1.1",
        }
        self.done = asyncio.ensure_future(app(scope, self._inbox.get, self._keep))

    async def _keep(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self._inbox.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> Any:
        await self.done
        assert self.sent[0]["status"] == 200, self.sent
        return json.loads(b"".join(message.get("body", b"") for message in self.sent[1:]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # upstream closes no stream
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_ends_the_work(app: Any, llama: Llama, stream: bool) -> None:
    async def main() -> tuple[int, Any]:
        llama.on_round = rounds = Rounds()
        client = Client(app, stream=stream, **LONG)
        await rounds.first.wait()
        client.leave()
        await client.done
        n = rounds.n
        return n, await Client(app, max_tokens=4).answer()

    n, answer = asyncio.run(main())
    gc.collect()
    assert 0 < n < N_CTX // 2
    assert answer["usage"]["completion_tokens"] == 4


def test_who_leaves_the_queue_disturbs_nobody(app: Any, llama: Llama) -> None:
    async def main() -> tuple[Any, list[Any], Any]:
        llama.on_round = rounds = Rounds()
        first = Client(app, max_tokens=200, min_tokens=200)
        await rounds.first.wait()
        second, third = Client(app, max_tokens=100), Client(app, max_tokens=4)
        await asyncio.sleep(0)
        second.leave()
        await second.done
        return await first.answer(), second.sent, await third.answer()

    first, second, third = asyncio.run(main())
    assert first["usage"]["completion_tokens"] == 200 and third["usage"]["completion_tokens"] == 4
    assert second == []


def test_requests_are_served_in_order(app: Any, llama: Llama) -> None:
    async def main() -> list[int]:
        llama.on_round = rounds = Rounds()
        order: list[int] = []
        clients = [Client(app, max_tokens=64, min_tokens=64)]
        await rounds.first.wait()
        clients += [Client(app, max_tokens=n) for n in (32, 8, 16)]
        for i, client in enumerate(clients):
            client.done.add_done_callback(lambda _, i=i: order.append(i))
        await asyncio.gather(*(client.done for client in clients))
        return order

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_what_needs_no_model_is_answered_out_of_turn(app: Any, llama: Llama) -> None:
    async def main() -> tuple[Any, Any, bool]:
        llama.on_round = rounds = Rounds()
        client = Client(app, **LONG)
        await rounds.first.wait()
        models = await Client(app, "/v1/models", "GET").answer()
        tokens = await Client(app, "/extras/tokenize", input="abc").answer()
        writing = not client.done.done()
        client.leave()
        await client.done
        return models, tokens, writing

    models, tokens, writing = asyncio.run(main())
    assert writing and [model["id"] for model in models["data"]] == ["tiny"] and tokens["tokens"]


def test_a_server_that_ends_says_so(app: Any, llama: Llama) -> None:
    async def main() -> tuple[int, int]:
        llama.on_round = rounds = Rounds()
        client = Client(app, **LONG)
        await rounds.first.wait()
        client.done.cancel()
        await client.done
        return client.sent[0]["status"], rounds.n

    status, n = asyncio.run(main())
    assert status == 503 and 0 < n < N_CTX // 2
