"""`cadcpp serve` and the class whose layers are on another machine: one error, and the next call goes on."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `server` is not installed")

import httpx  # noqa: E402

from cadcpp import AsyncLlama, Llama  # noqa: E402
from cadcpp.errors import ConfigError, WorkerError  # noqa: E402
from tests.support.server import Server, serving  # noqa: E402
from tests.support.workers import Worker, enough_for, needs_rpc, worker  # noqa: E402

pytestmark = needs_rpc
N_CTX, N_BLOCKS = 1024, 3
ASKED = {"prompt": "abc", "temperature": 0.0, "seed": 1}
OPTIONS: dict[str, Any] = {"n_ctx": N_CTX, "n_threads": 1, "fallback": "none", "max_tree_size": 8, "verbose": False}


@pytest.fixture(scope="module")
def path(tiny: Callable[..., Path]) -> Path:
    sizes = {"n_layer": 6, "n_embd": 128, "n_head": 4, "n_head_kv": 2, "n_ff": 256}
    return tiny("llama", **sizes, type_name="Q8_0", seed=3)


@pytest.fixture(scope="module")
def expected(path: Path) -> str:
    """What one machine writes, to any length."""
    with Llama(str(path), **OPTIONS) as llama:
        return text(llama, 400)


@pytest.fixture
def there(path: Path) -> Iterator[Worker]:
    with worker(enough_for(path, N_BLOCKS, N_CTX)) as running:
        yield running


def text(llama: Llama, n: int = 24) -> str:
    return str(llama(max_tokens=n, **ASKED)["choices"][0]["text"])


def leave(there: Worker) -> None:
    there.kill()
    there.front.close()


@contextmanager
def served(path: Path, there: Worker, tmp_path: Path) -> Iterator[Server]:
    sizes = ["--ctx", N_CTX, "--threads", 1, "--max-tree-size", 8, "--fallback", "none"]
    with serving(tmp_path / "log", "-m", path, *sizes, "--workers", there.address) as server:
        yield server
    assert "Traceback" not in server.log.read_text("utf-8")


def ask(server: Server, n: int = 24) -> httpx.Response:
    return httpx.post(f"{server.url}/completions", json=ASKED | {"max_tokens": n}, timeout=600)


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def test_a_worker_that_dies_in_a_stream_ends_it_with_an_error_and_is_back_for_the_next(
    path: Path, there: Worker, tmp_path: Path, expected: str
) -> None:
    with served(path, there, tmp_path) as server:
        assert expected.startswith(text_of(ask(server)))
        asked = ASKED | {"max_tokens": 400, "stream": True}
        with httpx.stream("POST", f"{server.url}/completions", json=asked, timeout=600) as answer:
            events = (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {"))
            shown = [next(events)]
            there.kill()
            shown += events
        assert f"worker {there.address} is lost" in shown.pop()["error"]["message"]
        assert expected.startswith("".join(event["choices"][0]["text"] for event in shown))
        n_before = len(there.servers)
        assert expected.startswith(text_of(ask(server))) and len(there.servers) > n_before
    assert any(line.endswith("the next request goes on with the workers that are there then") for line in server.told())


def test_a_server_goes_on_without_a_worker_that_has_gone(
    path: Path, there: Worker, tmp_path: Path, expected: str
) -> None:
    with served(path, there, tmp_path) as server:
        text_of(ask(server))
        leave(there)
        answer = ask(server)
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "worker_lost"
        assert expected.startswith(text_of(ask(server)))
        assert expected.startswith(text_of(ask(server)))
    (line,) = (line for line in server.told() if "goes on without it" in line)
    assert line.startswith(f"no worker at {there.address}")


def test_the_class_says_what_is_lost_and_goes_on_with_what_is_there(path: Path, there: Worker, expected: str) -> None:
    with Llama(str(path), workers=str(there.address), **OPTIONS) as llama:
        assert expected.startswith(text(llama)) and not llama.lost
        there.kill()
        with pytest.raises(WorkerError):
            text(llama, 400)
        assert f"{there.address} is lost" in llama.lost
        assert llama.reconnect() == () and not llama.lost
        assert llama.plan is not None and llama.plan.workers[0].n_blocks == N_BLOCKS
        assert expected.startswith(text(llama))
        leave(there)
        with pytest.raises(WorkerError):
            text(llama)
        (absence,) = llama.reconnect()
        assert absence.startswith(f"no worker at {there.address}")
        assert llama.plan is not None and not llama.plan.workers
        assert expected.startswith(text(llama))


def test_a_stream_that_is_half_read_does_not_outlive_its_model(path: Path, there: Worker) -> None:
    with Llama(str(path), workers=str(there.address), **OPTIONS) as llama:
        stream = llama(max_tokens=400, stream=True, **ASKED)
        next(stream)
        llama.reconnect()
        with pytest.raises(RuntimeError, match="closed: make another one"):
            list(stream)
        assert text(llama)


def test_without_the_engine_there_is_nothing_to_connect(path: Path) -> None:
    with Llama(str(path), vocab_only=True, verbose=False) as llama:
        with pytest.raises(ConfigError, match="upstream's"):
            llama.reconnect()
        assert llama.lost == ""


def test_awaited_calls_are_the_same(path: Path, there: Worker, expected: str) -> None:
    async def main() -> None:
        async with AsyncLlama(Llama(str(path), workers=str(there.address), **OPTIONS)) as llama:
            done = await llama.create_completion(max_tokens=24, **ASKED)
            assert expected.startswith(done["choices"][0]["text"])
            stream = llama.create_completion(max_tokens=400, stream=True, **ASKED)
            await anext(stream)
            there.kill()
            with pytest.raises(WorkerError, match=f"{there.address} is lost"):
                async for _ in stream:
                    pass
            assert await llama.call(llama.llama.reconnect) == ()
            done = await llama.create_completion(max_tokens=24, **ASKED)
            assert expected.startswith(done["choices"][0]["text"])

    asyncio.run(main())
