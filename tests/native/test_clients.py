"""Requests as clients really send them: status and shape of the answers, and, greedy, the text of the class."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra `server` is not installed")

from cadcpp import Llama  # noqa: E402
from cadcpp.server.app import make_app  # noqa: E402
from tests.support.asgi import Client, ask  # noqa: E402
from tests.support.vocab import N_VOCAB  # noqa: E402

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<|assistant|>"
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "maximum": 7}},
            "required": ["city"],
        },
    },
}
HI = {"role": "user", "content": "Hi"}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}},
    ],
}
RESULTS = [{"role": "tool", "tool_call_id": f"call_{i}", "content": "sunny"} for i in (1, 2)]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
GREEDY = {"temperature": 0, "max_tokens": 6}


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Path]) -> Path:
    return tiny("llama", type_name="Q8_0", chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def llama(model: Path, tiny: Callable[..., Path]) -> Iterator[Llama]:
    draft = tiny("llama", type_name="Q8_0", noise=0.02)
    with Llama(str(model), draft_model_path=draft, n_ctx=2048, n_threads=1, logits_all=True, verbose=False) as made:
        yield made


@pytest.fixture(scope="module")
def alone(model: Path) -> Iterator[Llama]:
    with Llama(str(model), speculative="off", n_ctx=2048, n_threads=1, logits_all=True, verbose=False) as made:
        yield made


@pytest.fixture
def app(llama: Llama) -> Any:
    return make_app(llama, "tiny")


def post(app: Any, path: str, body: Any) -> Client:
    return ask(app, path=path, chunks=[json.dumps(body).encode()])


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": list(messages), **GREEDY, **more}


def events(client: Client) -> list[Any]:
    assert client.status == 200, client.sent
    parts = client.body.decode().split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


CHATS = {
    "plain": chat(HI),
    "parts": chat({"role": "user", "content": [{"type": "text", "text": "Hi"}]}),
    "parts of a system": chat({"role": "system", "content": [{"type": "text", "text": "Brief."}]}, HI),
    "parts of an assistant": chat(HI, {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}, HI),
    "developer": chat({"role": "developer", "content": "Brief."}, HI),
    "a name": chat({**HI, "name": "ann"}),
    "null content beside calls": chat(HI, CALLED, *RESULTS),
    "no content beside calls": chat(HI, {k: v for k, v in CALLED.items() if k != "content"}, *RESULTS),
    "what openai's client sends back": chat(
        HI, {**CALLED, "refusal": None, "annotations": None, "audio": None, "function_call": None}, *RESULTS
    ),
    "parts of a tool": chat(HI, CALLED, {**RESULTS[0], "content": [{"type": "text", "text": "sunny"}]}, RESULTS[1]),
    "a third turn": chat(HI, CALLED, *RESULTS, {"role": "assistant", "content": "Sunny."}, HI, CALLED, *RESULTS),
    "an old function": chat(
        HI,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
    ),
    "nulls": chat(
        HI,
        **dict.fromkeys(
            "top_p top_k stop stream tools tool_choice response_format seed user n logit_bias logprobs top_logprobs "
            "frequency_penalty presence_penalty stream_options functions max_completion_tokens grammar".split()
        ),
    ),
    "max_completion_tokens": {"messages": [HI], "temperature": 0, "max_completion_tokens": 6},
    "no limit": {"messages": [HI], "temperature": 0, "max_tokens": 6, "stop": []},
    "no model": {"messages": [HI], **GREEDY},
    "another's parameters": chat(HI, user="u", store=False, metadata={}, service_tier="auto", parallel_tool_calls=True),
    "a stop": chat(HI, stop="zzz"),
    "stops": chat(HI, stop=["zzz", "yyy"]),
    "text": chat(HI, response_format={"type": "text"}),
    "no tools": chat(HI, tools=[]),
    "tools that may not be called": chat(HI, tools=[WEATHER], tool_choice="none"),
    "biased": chat(HI, logit_bias={"50": -100}),
    "modalities": chat(HI, modalities=["text"]),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("body", CHATS.values(), ids=CHATS)
def test_a_chat_is_answered_as_the_class_answers(app: Any, alone: Llama, body: dict[str, Any], stream: bool) -> None:
    expected = alone.create_chat_completion(
        body["messages"],
        tools=body.get("tools") if body.get("tool_choice") != "none" else None,
        **GREEDY,
        repeat_penalty=1.1,
        stop=body.get("stop") or [],
        logit_bias=body.get("logit_bias"),
        stream=stream,
    )
    if stream:
        want = "".join(each["choices"][0]["delta"].get("content") or "" for each in expected)
        found = events(post(app, "/v1/chat/completions", body | {"stream": True}))
        assert "".join(each["choices"][0]["delta"].get("content") or "" for each in found) == want
        assert {each["model"] for each in found} == {"tiny"} and len({each["id"] for each in found}) == 1
        return
    want = expected["choices"][0]["message"]["content"]
    client = post(app, "/v1/chat/completions", body)
    assert client.status == 200, client.sent
    answer = json.loads(client.body)
    assert answer["model"] == "tiny" and answer["usage"] == expected["usage"]
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": want}


COMPLETIONS: dict[str, tuple[dict[str, Any], int]] = {
    "a text": ({"prompt": "abc"}, 1),
    "token ids": ({"prompt": [20, 21, 22]}, 1),
    "texts": ({"prompt": ["abc", "xyz"]}, 2),
    "lists of token ids": ({"prompt": [[20, 21], [30, 31, 32]]}, 2),
    "a list of one": ({"prompt": ["abc"]}, 1),
    "several": ({"prompt": "abc", "n": 3, "best_of": 3}, 3),
    "several of several": ({"prompt": ["abc", "x"], "n": 2}, 4),
    "nulls": ({"prompt": "abc", "n": None, "best_of": None, "stop": None, "logprobs": None, "suffix": None}, 1),
    "nothing": ({"prompt": "abc", "max_tokens": 0}, 1),
    "an echo": ({"prompt": "abc", "echo": True}, 1),
    "an echo of ids": ({"prompt": [20, 21, 22], "echo": True}, 1),
    "an echo alone": ({"prompt": "abc", "echo": True, "max_tokens": 0}, 1),
    "no suffix": ({"prompt": "abc", "suffix": ""}, 1),
}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/engines/copilot-codex/completions"])
@pytest.mark.parametrize(("body", "n"), COMPLETIONS.values(), ids=COMPLETIONS)
def test_completions(app: Any, alone: Llama, path: str, body: dict[str, Any], n: int) -> None:
    client = post(app, path, GREEDY | body)
    assert client.status == 200, client.sent
    answer = json.loads(client.body)
    assert [choice["index"] for choice in answer["choices"]] == list(range(n))
    limit, given = body.get("max_tokens", 6), body["prompt"]
    prompts = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    texts = []
    for prompt in (prompt for prompt in prompts for _ in range(n // len(prompts))):
        made = alone(prompt, max_tokens=limit, temperature=0, repeat_penalty=1.1) if limit else None
        shown = "" if not body.get("echo") else prompt if isinstance(prompt, str) else alone.spelled(prompt)
        texts.append(shown + (made["choices"][0]["text"] if made else ""))
    assert [choice["text"] for choice in answer["choices"]] == texts
    assert answer["usage"]["completion_tokens"] == 0 if not limit else answer["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("body", [body for body, _ in COMPLETIONS.values()], ids=COMPLETIONS)
def test_streams_of_completions_say_the_same(app: Any, body: dict[str, Any]) -> None:
    whole = json.loads(post(app, "/v1/completions", GREEDY | body).body)
    chunks = events(
        post(app, "/v1/completions", GREEDY | body | {"stream": True, "stream_options": {"include_usage": True}})
    )
    texts = [""] * len(whole["choices"])
    for chunk in chunks[:-1]:
        assert chunk["usage"] is None
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]


REFUSED: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "an empty stop": ("completions", {"prompt": "a", "stop": ""}, "stop"),
    "an empty stop among others": ("chat/completions", chat(HI, stop=["a", ""]), "stop"),
    "nothing of a chat": ("chat/completions", chat(HI, max_tokens=0), "max_tokens"),
    "negative": ("completions", {"prompt": "a", "max_tokens": -1}, "max_tokens"),
    "best_of": ("completions", {"prompt": "a", "best_of": 2}, "best_of"),
    "n of none": ("chat/completions", chat(HI, n=0), "n"),
    "n as a text": ("chat/completions", chat(HI, n="two"), "n"),
    "a temperature as a text": ("chat/completions", chat(HI, temperature="hot"), "temperature"),
    "an infinite temperature": ("completions", {"prompt": "a", "temperature": 1e999}, "temperature"),
    "top_p": ("chat/completions", chat(HI, top_p=2), "top_p"),
    "stream as a text": ("chat/completions", chat(HI, stream="yes"), "stream"),
    "usage without a stream": ("chat/completions", chat(HI, stream_options={"include_usage": True}), "stream_options"),
    "stream_options as a text": ("chat/completions", chat(HI, stream=True, stream_options="x"), "stream_options"),
    "top_logprobs alone": ("chat/completions", chat(HI, top_logprobs=2), "top_logprobs"),
    "a prompt that is none": ("completions", {"prompt": {"a": 1}}, "prompt"),
    "ids of no token": ("completions", {"prompt": [10**6]}, "prompt"),
    "mixed prompts": ("completions", {"prompt": ["a", 5]}, "prompt"),
    "a bias of a word": ("completions", {"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
    "no messages": ("chat/completions", chat(), "messages"),
    "messages as a text": ("chat/completions", {"messages": "Hi"}, "messages"),
    "a role": ("chat/completions", chat({"role": "nobody", "content": "x"}), "messages[0].role"),
    "no content": ("chat/completions", chat(HI, {"role": "user", "content": None}), "messages[1].content"),
    "a picture": ("chat/completions", chat({"role": "user", "content": [IMAGE]}), "messages[0].content[0]"),
    "tools as an object": ("chat/completions", chat(HI, tools={}), "tools"),
    "a tool without a name": ("chat/completions", chat(HI, tools=[{"type": "function"}]), "tools"),
    "a choice without tools": ("chat/completions", chat(HI, tool_choice="required"), "tool_choice"),
    "a choice that is not there": (
        "chat/completions",
        chat(HI, tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "x"}}),
        "tool_choice",
    ),
    "a choice that is none": ("chat/completions", chat(HI, tools=[WEATHER], tool_choice="maybe"), "tool_choice"),
    "a schema that cannot be kept": (
        "chat/completions",
        chat(HI, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"if": {}}}}),
        "response_format",
    ),
    "no schema": ("chat/completions", chat(HI, response_format={"type": "json_schema"}), "response_format"),
    "a format that is none": ("chat/completions", chat(HI, response_format={"type": "xml"}), "response_format"),
    "speech": ("chat/completions", chat(HI, modalities=["text", "audio"]), "modalities"),
    "an echo with logprobs in a stream": (
        "completions",
        {"prompt": "a", "stream": True, "echo": True, "logprobs": 1},
        "echo",
    ),
    "an embedding": ("embeddings", {"input": "a"}, None),
    "a body that is a list": ("completions", [], "the body"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize(("path", "body", "param"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_served_is_refused_with_the_parameters_name(
    app: Any, path: str, body: Any, param: str | None
) -> None:
    client = post(app, f"/v1/{path}", body)
    error = json.loads(client.body)["error"]
    assert client.status == 400 and error["type"] == "invalid_request_error", error
    assert error["param"] == param and error["message"]


def test_the_place_in_a_schema_is_named(app: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}, {"not": {"type": "integer"}}]}}}
    body = chat(HI, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert b"#/properties/a/anyOf/1/not" in post(app, "/v1/chat/completions", body).body


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_tool_that_must_be_called_is(app: Any, choice: Any, stream: bool) -> None:
    body = chat(HI, tools=[WEATHER], tool_choice=choice, max_tokens=300, parallel_tool_calls=False, stream=stream)
    client = post(app, "/v1/chat/completions", body)
    if stream:
        deltas = [chunk["choices"][0]["delta"] for chunk in events(client)]
        parts = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
        assert [part["function"].get("name") for part in parts if "id" in part] == ["get_weather"]
        arguments = "".join(part["function"]["arguments"] for part in parts)
        assert events(client)[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        choice = json.loads(client.body)["choices"][0]
        (call,) = choice["message"]["tool_calls"]
        arguments = call["function"]["arguments"]
        assert choice["message"]["content"] is None and choice["finish_reason"] == "tool_calls"
    assert len(json.loads(arguments)["city"]) <= 8


def test_a_schema_is_kept(app: Any) -> None:
    kept = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    answer = json.loads(post(app, "/v1/chat/completions", chat(HI, response_format=kept, max_tokens=80)).body)
    assert list(json.loads(answer["choices"][0]["message"]["content"])) == ["ok"]


@pytest.mark.parametrize("n", [2, 3])
def test_several_answers(app: Any, n: int) -> None:
    answer = json.loads(post(app, "/v1/chat/completions", chat(HI, n=n, temperature=1.5, seed=3)).body)
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert len(texts) == n == len(set(texts)) and answer["usage"]["completion_tokens"] >= n


# evaluation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 5])
@pytest.mark.parametrize("prompt", ["abc xyz abc", [20, 21, 22, 50, 60], "日本 é"])
def test_an_echo_has_the_logprobs_of_one_pass(app: Any, alone: Llama, prompt: Any, limit: int) -> None:
    body = {"prompt": prompt, "echo": True, "logprobs": 2, "max_tokens": limit, "temperature": 0}
    choice = json.loads(post(app, "/v1/completions", body).body)["choices"][0]
    ids = prompt if isinstance(prompt, list) else alone.tokenize(prompt.encode())
    found = choice["logprobs"]["token_logprobs"]
    alone.reset()
    alone.eval(ids)
    logits = alone.scores[: len(ids)].astype(float)
    logprobs = logits - logits.max(1, keepdims=True)
    logprobs -= np.log(np.exp(logprobs).sum(1, keepdims=True))
    hidden = 0 if isinstance(prompt, list) else 1  # BOS, which the server added
    expected = [float(logprobs[i - 1, ids[i]]) for i in range(hidden + 1, len(ids))]
    assert found[0] is None and found[1 : len(expected) + 1] == pytest.approx(expected, abs=1e-4)
    assert (len(found) == len(ids) - hidden) == (limit == 0)
    offsets = choice["logprobs"]["text_offset"]
    assert offsets == sorted(offsets) and offsets[-1] <= len(choice["text"])
    wrong = [float(logprobs[i, ids[i]]) for i in range(hidden + 1, len(ids))]  # a row off
    assert found[1 : len(expected) + 1] != pytest.approx(wrong, abs=1e-4)


# llama-server and ollama --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/health", "status"),
        ("/v1/health", "status"),
        ("/props", "default_generation_settings"),
        ("/plan", "plan"),
        ("/models", "data"),
        ("/v1/models", "data"),
        ("/v1/models/tiny", "id"),
        ("/api/version", "version"),
        ("/api/tags", "models"),
        ("/api/ps", "models"),
    ],
)
def test_what_is_asked_without_a_body(app: Any, path: str, key: str) -> None:
    client = ask(app, path=path, method="GET", chunks=[b""])
    assert client.status == 200 and key in json.loads(client.body)
    assert b"/" not in client.body or b".gguf" not in client.body  # not where it lies


def test_slots_and_metrics(app: Any) -> None:
    post(app, "/v1/completions", {"prompt": "abc", **GREEDY})
    assert json.loads(ask(app, path="/slots", method="GET", chunks=[b""]).body)[0]["is_processing"] is False
    text = ask(app, path="/metrics", method="GET", chunks=[b""]).body.decode()
    figures = dict(line.split() for line in text.splitlines() if not line.startswith("#"))
    assert figures["cadcpp_tokens_total"] == figures["llamacpp:tokens_predicted_total"] == "6"
    assert {"cadcpp_acceptance_ratio", "cadcpp_read_bytes_total", "cadcpp_queue_length"} <= set(figures)


@pytest.mark.parametrize("path", ["/v1/models/other", "/nowhere", "/api/nowhere"])
def test_what_is_not_there(app: Any, path: str) -> None:
    client = ask(app, path=path, method="GET", chunks=[b""])
    error = json.loads(client.body)["error"]
    assert client.status == 404 and (isinstance(error, str) if path.startswith("/api/") else error["message"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("prompt", ["abc", [20, 21, 22], ["abc", 20]])
def test_a_native_completion(app: Any, alone: Llama, prompt: Any, stream: bool) -> None:
    body = {"prompt": prompt, "n_predict": 6, "temperature": 0, "cache_prompt": True, "stream": stream}
    client = post(app, "/completion", body)
    lines = [line for line in client.body.decode().split("\n\n") if line]
    found = [json.loads(line.removeprefix("data: ")) for line in lines] if stream else [json.loads(client.body)]
    if prompt == ["abc", 20]:
        prompt = [*alone.tokenize(b"abc", add_bos=False, special=True), 20]
    want = alone(prompt, max_tokens=6, temperature=0)
    assert "".join(each["content"] for each in found) == want["choices"][0]["text"] and found[-1]["stop"] is True
    assert found[-1]["tokens_predicted"] == want["usage"]["completion_tokens"]
    assert found[-1]["stop_type"] == {"length": "limit", "stop": "eos"}[want["choices"][0]["finish_reason"]]


def test_tokens_and_back(app: Any, alone: Llama) -> None:
    ids = json.loads(post(app, "/tokenize", {"content": "abc xyz"}).body)["tokens"]
    assert ids == alone.tokenize(b"abc xyz", add_bos=False, special=True)
    assert "abc" in json.loads(post(app, "/detokenize", {"tokens": ids}).body)["content"]
    pieces = json.loads(post(app, "/tokenize", {"content": "abc", "with_pieces": True}).body)["tokens"]
    assert [piece["id"] for piece in pieces] == alone.tokenize(b"abc", add_bos=False, special=True)
    assert json.loads(post(app, "/apply-template", {"messages": [HI]}).body)["prompt"] == "<|user|>Hi<|assistant|>"


def lines_of(client: Client) -> list[Any]:
    assert client.status == 200, client.sent
    return [json.loads(line) for line in client.body.splitlines()]


OPTIONS = {"temperature": 0, "num_predict": 6, "top_p": 0.95, "min_p": 0.05}


@pytest.mark.parametrize("name", ["tiny", "tiny:latest"])
def test_ollamas_chat(app: Any, alone: Llama, name: str) -> None:
    body = {"model": name, "messages": [HI], "options": OPTIONS}
    want = alone.create_chat_completion([HI], **GREEDY, repeat_penalty=1.1)["choices"][0]["message"]["content"]
    found = lines_of(post(app, "/api/chat", body))
    assert "".join(each["message"]["content"] for each in found) == want
    assert [each["done"] for each in found] == [False] * (len(found) - 1) + [True]
    assert found[-1]["done_reason"] == "length" and found[-1]["eval_count"] == 6
    (whole,) = lines_of(post(app, "/api/chat", body | {"stream": False}))
    assert whole["message"] == {"role": "assistant", "content": want} and whole["done"] is True


def test_ollamas_generate(app: Any, alone: Llama) -> None:
    want = alone("abc", max_tokens=6, temperature=0, repeat_penalty=1.1)["choices"][0]["text"]
    body = {"model": "tiny", "prompt": "abc", "options": OPTIONS}
    found = lines_of(post(app, "/api/generate", body | {"raw": True}))
    assert "".join(each["response"] for each in found) == want and found[-1]["done"] is True
    (whole,) = lines_of(post(app, "/api/generate", body | {"stream": False, "format": SCHEMA, "system": "Brief."}
                             | {"options": {**OPTIONS, "num_predict": 80}}))  # fmt: skip
    assert list(json.loads(whole["response"])) == ["ok"]


def test_ollamas_tools_come_back(app: Any) -> None:
    called = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "get_weather", "arguments": {}}}],
    }
    body = {"model": "tiny", "messages": [HI, called, {"role": "tool", "content": "sunny", "tool_name": "get_weather"}]}
    assert lines_of(post(app, "/api/chat", body | {"tools": [WEATHER], "options": OPTIONS}))[-1]["done"] is True


@pytest.mark.parametrize(
    "body", [{"model": "tiny"}, {"model": "tiny", "messages": []}, {"model": "tiny", "prompt": ""}]
)
def test_ollamas_clients_load_a_model_before_they_use_it(app: Any, body: dict[str, Any]) -> None:
    path = "/api/generate" if "prompt" in body else "/api/chat"
    assert lines_of(post(app, path, body))[-1]["done_reason"] == "load"


@pytest.mark.parametrize(
    "body",
    [
        {"model": "other", "messages": [HI]},
        {"model": "tiny", "messages": [{**HI, "images": ["AAAA"]}]},
        {"model": "tiny", "messages": [HI], "format": "xml"},
        {"model": "tiny", "messages": [HI], "options": {"temperature": "hot"}},
        {"model": "tiny", "messages": [HI], "options": []},
    ],
)
def test_ollamas_errors_are_texts(app: Any, body: dict[str, Any]) -> None:
    client = post(app, "/api/chat", body)
    assert client.status in (400, 404) and isinstance(json.loads(client.body)["error"], str)


# who may ask --------------------------------------------------------------------------------------------

PATHS = {
    "GET": "/v1/models /v1/models/tiny /models /props /slots /plan /metrics /api/tags /api/ps /api/version".split(),
    "POST": "/v1/completions /v1/chat/completions /chat/completions /completion /completions /infill /tokenize "
    "/detokenize /apply-template /extras/tokenize /extras/tokenize/count /extras/detokenize /api/chat /api/generate "
    "/api/show /v1/embeddings /embedding /api/embed /v1/engines/x/completions".split(),
}


@pytest.mark.parametrize(("method", "path"), [(method, path) for method in PATHS for path in PATHS[method]])
def test_every_path_needs_the_key_and_a_sender_that_may(llama: Llama, method: str, path: str) -> None:
    locked, unlocked = make_app(llama, "tiny", "a-key"), make_app(llama, "tiny")
    given: dict[str, Any] = {"path": path, "method": method, "chunks": [b"{}"]}
    assert ask(locked, **given).status == 401
    assert ask(locked, **given, headers={"authorization": "Bearer other"}).status == 401
    assert ask(locked, **given, headers={"authorization": "Bearer a-key"}).status in (200, 400)
    assert ask(unlocked, **given, headers={"host": "evil.example"}).status == 421
    assert ask(unlocked, **given, headers={"origin": "https://evil.example"}).status == 403


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/health"])
def test_what_needs_no_key_says_nothing(llama: Llama, path: str) -> None:
    client = ask(make_app(llama, "secret-name", "a-key"), path=path, method="GET", chunks=[b""])
    assert client.status == 200 and b"secret-name" not in client.body and b"a-key" not in client.body
    if path != "/health":
        policy = dict(client.sent[0]["headers"])[b"content-security-policy"].decode()
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_pages_of_an_allowed_origin_may_use_it_with_the_key(llama: Llama) -> None:
    app = make_app(llama, "tiny", "a-key", ("https://chat.example",))
    origin = {"origin": "https://chat.example"}
    asks = origin | {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = ask(app, method="OPTIONS", headers=asks, chunks=[b""])
    allowed = dict(preflight.sent[0]["headers"])
    assert preflight.status == 204 and allowed[b"access-control-allow-origin"] == b"https://chat.example"
    answer = ask(app, path="/v1/models", method="GET", headers=origin | {"authorization": "Bearer a-key"}, chunks=[b""])
    assert (
        answer.status == 200 and (b"access-control-allow-origin", b"https://chat.example") in answer.sent[0]["headers"]
    )
    assert ask(app, path="/v1/models", method="GET", headers=origin, chunks=[b""]).status == 401
    other = ask(app, method="OPTIONS", headers=asks | {"origin": "https://evil.example"}, chunks=[b""])
    assert other.status >= 400 and not any(name.startswith(b"access-control") for name, _ in other.sent[0]["headers"])


# between two texts --------------------------------------------------------------------------------------

FIM = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>", "<|repo_name|>"]


@pytest.fixture(scope="module")
def filler(tiny: Callable[..., Path]) -> Iterator[Llama]:
    """A model with tokens for texts that are filled in."""
    path = tiny("llama", type_name="Q8_0", n_padding=len(FIM), vocabulary={"control": FIM})
    with Llama(str(path), n_ctx=256, n_threads=1, logits_all=True, verbose=False) as made:
        yield made


def filling(llama: Llama, before: str, after: str, *beside: str) -> list[int]:
    """The prompt as it has to be."""
    first = N_VOCAB
    prefix, suffix, middle, separator, repository = range(first, first + len(FIM))
    ids = [llama.token_bos()]
    for i, text in enumerate(beside):
        ids += [separator if i else repository, *llama.tokenize(text.encode(), add_bos=False)]
    ids += [prefix, *llama.tokenize(before.encode(), add_bos=False)]
    return [*ids, suffix, *llama.tokenize(after.encode(), add_bos=False), middle]


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/infill", {"input_prefix": "ab", "input_suffix": "yz", "n_predict": 5}, "content"),
        ("/infill", {"input_prefix": "a", "prompt": "b", "input_suffix": "yz", "n_predict": 5}, "content"),
        ("/v1/completions", {"prompt": "ab", "suffix": "yz", "max_tokens": 5, "repeat_penalty": 1}, "choices"),
        (
            "/api/generate",
            {
                "prompt": "ab",
                "suffix": "yz",
                "stream": False,
                "options": {"num_predict": 5, "temperature": 0, "repeat_penalty": 1},
            },
            "response",
        ),
    ],
)
def test_a_text_is_filled_in(filler: Llama, path: str, body: dict[str, Any], key: str) -> None:
    want = filler(filling(filler, "ab", "yz"), max_tokens=5, temperature=0)["choices"][0]["text"]
    client = post(make_app(filler, "tiny"), path, {"temperature": 0, **body})
    assert client.status == 200, client.body
    found = json.loads(client.body)[key]
    assert (found if isinstance(found, str) else found[0]["text"]) == want


def test_files_go_before_what_is_filled_in(filler: Llama) -> None:
    files = [{"filename": "a.py", "text": "one"}, {"text": "two"}]
    body = {"input_prefix": "ab", "input_suffix": "yz", "input_extra": files, "n_predict": 3, "temperature": 0}
    assert post(make_app(filler, "tiny"), "/infill", body).status == 200
    assert filler._reply.prompt == filling(filler, "ab", "yz", "project\n", "a.py\none", "file\ntwo")


def test_a_model_that_cannot_fill_in_says_so(app: Any) -> None:
    client = post(app, "/infill", {"input_prefix": "ab", "input_suffix": "yz"})
    assert client.status == 501 and json.loads(client.body)["error"]["param"] == "input_suffix"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_probabilities_of_a_native_completion(app: Any, alone: Llama, stream: bool) -> None:
    body = {"prompt": "abc", "n_predict": 6, "temperature": 0, "n_probs": 3, "return_tokens": True, "stream": stream}
    text = post(app, "/completion", body).body.decode()
    parts = [json.loads(part.removeprefix("data: ")) for part in text.split("\n\n") if part] if stream else None
    found = parts if parts is not None else [json.loads(text)]
    tokens = [token for each in found for token in each["tokens"]]
    probs = [prob for each in found for prob in each["completion_probabilities"]]
    ids = alone.tokenize(b"abc")
    alone.reset()
    alone.eval([*ids, *tokens])
    assert len(tokens) == 6 and [prob["id"] for prob in probs] == tokens
    for i, prob in enumerate(probs):
        logits = alone.scores[len(ids) - 1 + i].astype(float)
        logprobs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        top = [(int(token), pytest.approx(logprobs[token], abs=1e-4)) for token in np.argsort(-logprobs)[:3]]
        assert [(each["id"], each["logprob"]) for each in prob["top_logprobs"]] == top
        assert prob["logprob"] == pytest.approx(logprobs[tokens[i]], abs=1e-4)
        assert bytes(prob["bytes"]).decode("utf-8", "replace") == prob["token"]
