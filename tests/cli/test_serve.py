"""`cadcpp serve` in a process of its own, asked by OpenAI's client: what it answers, and what it survives."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `server` is not installed")
openai = pytest.importorskip("openai")

import httpx  # noqa: E402
import pydantic  # noqa: E402

from cadcpp import Llama  # noqa: E402
from cadcpp.models.demo import DemoPair  # noqa: E402
from tests.support.server import Server, serving  # noqa: E402

pytestmark = pytest.mark.real

KEY, NAME, N_CTX = "a-key", "smol", 512
STORY = "Once upon a time, in a village by the sea,"
ASK = [{"role": "user", "content": "Name three colours."}]
GREEDY = {"temperature": 0.0, "seed": 1}
LONG: dict[str, Any] = {"n": N_CTX - 40, "extra_body": {"min_tokens": N_CTX - 40}}


class Pet(pydantic.BaseModel):
    """What a JSON answer has to be."""

    kind: str = pydantic.Field(pattern="^(cat|dog|bird)$")
    tame: bool


@pytest.fixture(scope="module")
def server(target: Path, demo: DemoPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ["-d", demo.draft, "--ctx", N_CTX, "--threads", 1, "--alias", NAME, "--logprobs"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(log, "-m", target, *options, CADCPP_API_KEY=KEY) as running:
        yield running
    assert running.process.returncode == 130 and "Traceback" not in log.read_text("utf-8")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture(scope="module")
def alone(target: Path) -> Iterator[Llama]:
    """The same model, without drafts and without a server."""
    options: dict[str, Any] = {"n_ctx": N_CTX, "n_threads": 1, "logits_all": True, "verbose": False}
    with Llama(str(target), speculative="off", **options) as llama:
        yield llama


@pytest.fixture(scope="module")
def expected(alone: Llama) -> str:
    """What the server must answer at any time."""
    return text_of(alone, STORY)


@pytest.fixture(autouse=True)
def as_good_as_before(server: Server, client: Any, expected: str) -> Iterator[None]:
    yield
    assert server.process.poll() is None
    assert write(client, STORY).choices[0].text == expected


def text_of(llama: Llama, prompt: str, n: int = 4) -> str:
    return str(llama(prompt, max_tokens=n, repeat_penalty=1.1, **GREEDY)["choices"][0]["text"])


def write(client: Any, prompt: str, n: int = 4, **options: Any) -> Any:
    return client.completions.create(**{"model": NAME, "prompt": prompt, "max_tokens": n, **GREEDY, **options})


def chat(client: Any, n: int | None = 8, **options: Any) -> Any:
    given = {"model": NAME, "messages": ASK, "max_tokens": n, **GREEDY, **options}
    return client.chat.completions.create(**given)


def test_it_says_what_it_serves(server: Server, client: Any) -> None:
    what, where = server.told()[:2]
    assert what.startswith(f"{NAME}: {N_CTX} tokens of context, draft: ") and "everything fits" in what
    assert server.url in where and server.url.startswith("http://127.0.0.1:")
    assert [model.id for model in client.models.list()] == [NAME]


def test_a_completion_is_the_models_own(client: Any, alone: Llama) -> None:
    mine = write(client, STORY, 16)
    theirs = alone(STORY, max_tokens=16, repeat_penalty=1.1, **GREEDY)
    assert mine.choices[0].text == theirs["choices"][0]["text"]
    assert mine.usage.model_dump(include=set(theirs["usage"])) == theirs["usage"]
    assert mine.choices[0].finish_reason == theirs["choices"][0]["finish_reason"]


def test_a_chat_is_the_models_own(client: Any, alone: Llama) -> None:
    theirs = alone.create_chat_completion(ASK, max_tokens=8, repeat_penalty=1.1, **GREEDY)
    assert chat(client).choices[0].message.content == theirs["choices"][0]["message"]["content"]
    same = chat(client, None, extra_body={"max_completion_tokens": 8})
    assert same.choices[0].message.content == theirs["choices"][0]["message"]["content"]


def test_streams_say_the_same(client: Any) -> None:
    chunks = [chunk.choices[0] for chunk in write(client, STORY, 16, stream=True)]
    assert len(chunks) > 3 and chunks[-1].finish_reason == "length"
    assert "".join(chunk.text for chunk in chunks) == write(client, STORY, 16).choices[0].text
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, stream=True)]
    assert "".join(pieces) == chat(client).choices[0].message.content


def test_a_stop_string_ends_the_text(client: Any) -> None:
    whole = write(client, STORY, 16).choices[0].text
    stop = whole.split()[4]
    answer = write(client, STORY, 16, stop=[stop]).choices[0]
    assert (answer.text, answer.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_logprobs(client: Any, alone: Llama) -> None:
    theirs = alone(STORY, max_tokens=6, logprobs=3, repeat_penalty=1.1, **GREEDY)["choices"][0]["logprobs"]
    mine = write(client, STORY, 6, logprobs=3).choices[0].logprobs
    assert mine.tokens == theirs["tokens"]
    assert mine.token_logprobs == pytest.approx(theirs["token_logprobs"], abs=1e-4)
    answer = chat(client, 4, logprobs=True, top_logprobs=2).choices[0]
    assert all(len(token.top_logprobs) >= 2 for token in answer.logprobs.content)


def test_a_json_schema(client: Any) -> None:
    answer = client.chat.completions.parse(
        model=NAME, messages=[{"role": "user", "content": "Describe a pet."}], response_format=Pet, **GREEDY
    )
    assert answer.choices[0].message.parsed is not None
    schema = {"type": "json_object", "schema": Pet.model_json_schema()}  # upstream's way
    Pet.model_validate_json(chat(client, 60, response_format=schema).choices[0].message.content)


def test_a_wrong_key(server: Server) -> None:
    with openai.OpenAI(base_url=server.url, api_key="another", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as caught:
            write(stranger, STORY)
    assert caught.value.code == "invalid_api_key"
    assert httpx.get(f"{server.url}/models").status_code == 401


def test_with_a_key_it_answers_to_any_name(server: Server) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Host": "models.example", "Origin": "https://pages.example"}
    answer = httpx.get(f"{server.url}/models", headers=headers)
    assert answer.status_code == 200 and not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
def test_a_body_that_is_too_large(server: Server, announced: bool) -> None:
    chunks = [b" " * (1 << 16)] * 40
    answer = httpx.post(f"{server.url}/completions", content=b"".join(chunks) if announced else iter(chunks))
    assert answer.status_code == 413 and answer.json()["error"]["message"]


def test_its_log_has_nothing_of_what_was_asked(server: Server) -> None:
    bad: list[dict[str, Any]] = [
        {"prompt": {"in": "a secret"}},
        {"prompt": "a secret", "grammar": "root ::= (a secret"},
        {"prompt": "a secret " * N_CTX},
        {"prompt": "a secret", "max_tokens": 2},
    ]
    headers = {"Authorization": f"Bearer {KEY}"}
    found = [httpx.post(f"{server.url}/completions", json=each, headers=headers, timeout=60) for each in bad]
    assert [answer.status_code for answer in found] == [400, 400, 400, 200]
    told = "\n".join(server.told())
    assert "secret" not in told and KEY not in told


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_unknown_model(client: Any, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError, match=f"'gpt-4'.*{NAME}") as caught:
        list(write(client, STORY, model="gpt-4", stream=stream))
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("ask", [write, chat])
def test_a_prompt_that_is_too_long(client: Any, ask: Callable[..., Any], stream: bool) -> None:
    text = "word " * N_CTX
    given = {"messages": [{"role": "user", "content": text}]} if ask is chat else {"prompt": text}
    with pytest.raises(openai.BadRequestError, match=str(N_CTX)) as caught:
        list(ask(client, **given, stream=stream) if ask is chat else write(client, text, stream=stream))
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("completions", b"{", id="no JSON"),
        pytest.param("completions", b"[1]", id="no object"),
        pytest.param("completions", {"prompt": 5}, id="a prompt that is no text"),
        pytest.param("completions", {"prompt": ["a", 5]}, id="mixed prompts"),
        pytest.param("completions", {"prompt": "a", "max_tokens": -1}, id="negative max_tokens"),
        pytest.param("completions", {"prompt": "a", "grammar": "root ::= ("}, id="unreadable grammar"),
        pytest.param("completions", {"prompt": "a", "grammar": "root ::= (", "stream": True}, id="... in a stream"),
        pytest.param("completions", {"prompt": "a", "logit_bias": {"x": 1}}, id="logit_bias of a word"),
        pytest.param("completions", {"prompt": "a", "logit_bias": {"999999": 1}}, id="logit_bias of no token"),
        pytest.param("chat/completions", {"messages": [{"role": "nobody"}]}, id="unknown role"),
        pytest.param("chat/completions", {"messages": ASK, "response_format": {"type": "json_schema"}}, id="no schema"),
        pytest.param("embeddings", {"input": "a"}, id="embeddings"),
        pytest.param("../extras/detokenize", {"tokens": [10**6]}, id="no such token"),
        pytest.param("../extras/detokenize", {"tokens": [-1]}, id="a negative token"),
    ],
)
def test_a_bad_request_is_refused(server: Server, path: str, body: bytes | dict[str, Any]) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    answer = httpx.post(f"{server.url}/{path}", content=content, headers=headers, timeout=60)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error" and answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "sampling", [{"repeat_penalty": 0}, {"mirostat_mode": 1}, {"top_k": 0}, {"presence_penalty": -2}]
)
def test_odd_sampling_is_survived(client: Any, sampling: dict[str, Any]) -> None:
    assert write(client, STORY, extra_body=sampling, temperature=1.0).choices[0].finish_reason


def test_a_disconnect_in_mid_stream(client: Any) -> None:
    stream = write(client, STORY, **LONG, stream=True)
    assert next(iter(stream)).choices
    stream.close()


def test_a_disconnect_before_the_answer(client: Any) -> None:
    with pytest.raises(openai.APITimeoutError):
        write(client, STORY, **LONG, timeout=0.2)


def test_four_clients_at_once(client: Any, alone: Llama) -> None:
    prompts = [STORY, "The first president", "def add(a, b):", "Numbers: one, two, one, two,"]

    def ask(prompt: str) -> str:
        return "".join(chunk.choices[0].text for chunk in write(client, prompt, 8, stream=True))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, prompts)) == [text_of(alone, prompt, 8) for prompt in prompts]
