"""The server's application in this process, where the passes of a request can be counted."""

import asyncio
import gc
import hmac
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `server` is not installed")

from starlette.datastructures import Headers  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402

from cadcpp import Llama  # noqa: E402
from cadcpp.runtime.round import Round  # noqa: E402
from cadcpp.server.access import Access, largest_body  # noqa: E402
from cadcpp.server.app import make_app  # noqa: E402
from tests.support.asgi import Client, ask  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # upstream closes no stream

N_CTX = 2048
LONG: dict[str, Any] = {"max_tokens": N_CTX - 10, "min_tokens": N_CTX - 10}


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


@pytest.fixture
def app(llama: Llama) -> Any:
    return make_app(llama, "tiny")


@pytest.fixture(autouse=True)
def uncounted(llama: Llama) -> None:
    llama.on_round = None


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


def test_requests_are_served_in_order(app: Any, llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    delays = iter([0.0] + [0.1 - 0.01 * i for i in range(10)])

    async def overtaken(call: Any, *args: Any, **_kwargs: Any) -> Any:
        """A thread that is busy for longer, the earlier it was asked."""
        await asyncio.sleep(next(delays, 0.0))
        return call(*args)

    monkeypatch.setattr("anyio.to_thread.run_sync", overtaken)

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


# Who may ask, how much, and what of it is logged. -----------------------------------------------------

SECRET = "tell nobody"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.0.0.2", "[::1]:8000"])
def test_names_of_this_machine(app: Any, host: str) -> None:
    assert ask(app, max_tokens=1, headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "10.0.0.1", "[::1", "a:b"],
)
def test_a_name_that_was_made_to_point_here(app: Any, host: str) -> None:
    client = ask(app, max_tokens=1, headers={"host": host})
    assert client.status == 421 and b"127.0.0.1" in client.body


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        pytest.param("http://127.0.0.1:8000", 200, id="its own page"),
        pytest.param("https://evil.example", 403, id="another site"),
        pytest.param("http://127.0.0.1:9000", 403, id="another server of this machine"),
        pytest.param("null", 403, id="a page of nobody's"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_web_pages(app: Any, origin: str, status: int, stream: bool) -> None:
    client = ask(app, max_tokens=1, stream=stream, headers={"origin": origin})
    assert client.status == status
    assert not any(name.startswith(b"access-control") for name, _ in client.sent[0]["headers"])


def test_no_page_of_another_site_is_told_that_it_may(app: Any) -> None:
    asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert ask(app, method="OPTIONS", headers=asks).status == 403


def test_a_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    equal = hmac.compare_digest

    def watched(given: bytes, key: bytes) -> bool:
        compared.append((given, key))
        return equal(given, key)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    access = Access("a-key")
    access.check_key(Headers({"authorization": "Bearer a-key"}))
    for given in ({}, {"authorization": "Bearer \xe4-key"}, {"authorization": "Basic a-key"}):
        with pytest.raises(HTTPException) as caught:
            access.check_key(Headers(given))
        assert caught.value.status_code == 401 and "a-key" not in caught.value.detail
    assert compared == [(b"a-key", b"a-key"), ("\xe4-key".encode(), b"a-key")]


def test_a_large_body(app: Any) -> None:
    limit = largest_body(N_CTX)
    announced = ask(app, headers={"content-length": str(limit + 1)})
    chunked = ask(app, chunks=[b" " * (limit // 2)] * 3)
    largest = ask(app, chunks=[b" " * (limit - 27), b'{"prompt":"","max_tokens":1}'[1:], b""])
    assert (announced.status, chunked.status, largest.status) == (413, 413, 400)
    assert str(limit).encode() in announced.body and str(limit).encode() in chunked.body


def test_a_text_as_long_as_the_context_in_the_longest_spelling_is_read(app: Any) -> None:
    assert ask(app, prompt=chr(1) * 8 * N_CTX).status == 400  # too many tokens, and not too many bytes


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("completions", {"prompt": {SECRET: SECRET}}, 400, id="no prompt"),
        pytest.param("completions", {"prompt": SECRET, "max_tokens": -1}, 400, id="max_tokens"),
        pytest.param("completions", {"prompt": f"{SECRET} " * N_CTX}, 400, id="too long"),
        pytest.param("completions", {"prompt": SECRET, "grammar": f"root ::= ({SECRET}"}, 400, id="grammar"),
        pytest.param("completions", {"prompt": SECRET, "logit_bias": {SECRET: 1}}, 400, id="logit_bias"),
        pytest.param("chat/completions", {"messages": [{"role": SECRET, "content": SECRET}]}, 400, id="role"),
        pytest.param("completions", {"prompt": SECRET, "max_tokens": 2}, 200, id="good"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_log_without_requests(
    app: Any, path: str, body: Any, status: int, stream: bool, caplog: Any, capfd: Any
) -> None:
    caplog.set_level(logging.INFO)
    client = ask(app, path=f"/v1/{path}", stream=stream, **body)
    told = caplog.text + "".join(capfd.readouterr())
    assert client.status == status and SECRET not in told
    if status == 400:
        assert "\n" not in json.loads(client.body)["error"]["message"]


def test_a_failure_is_logged_without_what_it_quotes(app: Any, llama: Llama, caplog: Any, capfd: Any) -> None:
    def fail(_round: Round) -> None:
        raise KeyError(SECRET)

    llama.on_round = fail
    client = ask(app, max_tokens=1)
    told = caplog.text + "".join(capfd.readouterr())
    assert client.status == 500 and "KeyError" in told and "in fail" in told and SECRET not in told


def test_a_body_that_is_nested_too_deeply(app: Any) -> None:
    client = ask(app, chunks=[b"[" * 200_000])
    assert client.status == 400 and b"nested" in client.body
