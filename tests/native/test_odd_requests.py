"""Requests that are odd and legal, of clients that send all they know: answered as if they said less, or refused."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `server` is not installed")

from cadcpp import Llama  # noqa: E402
from cadcpp.server.app import make_app  # noqa: E402
from tests.support.asgi import Client, ask  # noqa: E402

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% if m.name is defined %} of {{ m.name }}{% endif %}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}\n{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}quick{% endif %}"
    "{% if reasoning_effort is defined %}{{ reasoning_effort }}{% endif %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<|assistant|>"
)
HI: dict[str, Any] = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NATIVE = {"prompt": "abc", "n_predict": 6, "temperature": 0}


@pytest.fixture(scope="module")
def llama(tiny: Callable[..., Path]) -> Iterator[Llama]:
    model = tiny("llama", type_name="Q8_0", chat_template=TEMPLATE)
    draft = tiny("llama", type_name="Q8_0", noise=0.02)
    with Llama(str(model), draft_model_path=draft, n_ctx=1024, n_threads=1, fallback="none", verbose=False) as made:
        yield made


@pytest.fixture(scope="module")
def app(llama: Llama) -> Any:
    return make_app(llama, "tiny")


def post(app: Any, path: str, body: Any) -> Client:
    return ask(app, path=path, chunks=[json.dumps(body).encode()])


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": list(messages or (HI,)), "temperature": 0, "max_tokens": 6, **more}


def said(app: Any, path: str, body: Any) -> str:
    client = post(app, path, body)
    assert client.status == 200, client.body
    if "/api/" in path:
        lines = [json.loads(line) for line in client.body.splitlines()]
        return "".join(line.get("response", "") + line.get("message", {}).get("content", "") for line in lines)
    if path == "/completion":
        return str(json.loads(client.body)["content"])
    return str(json.loads(client.body)["choices"][0]["message"]["content"])


# what changes nothing -----------------------------------------------------------------------------------

SAME_CHATS: dict[str, dict[str, Any]] = {
    "a seed that is negative": {"seed": -1},
    "a large seed": {"seed": 2**40},
    "a whole float": {"max_tokens": 6.0},
    "stop of none": {"stop": []},
    "a stop in a list": {"stop": ["zzzz"]},
    "no bias": {"logit_bias": {}},
    "a list without biases": {"logit_bias": []},
    "who asks": {"user": "u", "metadata": {"a": "b"}, "store": True, "safety_identifier": "x", "prompt_cache_key": "k"},
    "service": {"service_tier": "flex", "verbosity": "low", "prediction": {"type": "content", "content": "Hi"}},
    "no tools, in parallel": {"tools": None, "tool_choice": None, "parallel_tool_calls": None},
    "a choice of no tools": {"tools": [], "tool_choice": "none"},
    "a choice without tools": {"tool_choice": "auto"},
    "text as a format": {"response_format": {"type": "text"}},
    "options of no stream": {"stream": False, "stream_options": None},
    "llama-server's": {"cache_prompt": True, "id_slot": -1, "timings_per_token": True, "n_keep": 0, "samplers": []},
    "samplers that do nothing": {
        "dry_multiplier": 0.0,
        "xtc_probability": 0,
        "dynatemp_range": 0,
        "top_n_sigma": -1,
        "mirostat": 0,
        "repeat_last_n": 64,
        "ignore_eos": False,
        "lora": [],
        "grammar_lazy": False,
        "n_indent": 0,
    },
    "vLLM's": {"skip_special_tokens": True, "use_beam_search": False, "add_generation_prompt": True, "best_of": 1},
    "another name of the penalty": {"repetition_penalty": 1.1},
    "no format": {"response_format": None, "json_schema": None, "guided_json": None},
    "no options of the template": {"chat_template_kwargs": {}},
    "what nobody knows": {"x_custom": {"a": [1]}, "frequency": None},
}


@pytest.mark.parametrize("more", SAME_CHATS.values(), ids=SAME_CHATS)
def test_a_chat_that_says_nothing_more(app: Any, more: dict[str, Any]) -> None:
    assert said(app, "/v1/chat/completions", chat(**more)) == said(app, "/v1/chat/completions", chat())


SAME_MESSAGES: dict[str, tuple[list[Any], list[Any]]] = {
    "empty parts": ([{"role": "user", "content": []}], [{"role": "user", "content": ""}]),
    "an empty text": ([{"role": "system", "content": ""}, HI], [{"role": "system", "content": [""]}, HI]),
    "a hint for caches": (
        [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}],
        [HI],
    ),
    "a part without a type": ([{"role": "user", "content": [{"text": "Hi"}]}], [HI]),
    "no calls": ([HI, {"role": "assistant", "content": "A", "tool_calls": []}, HI],
                 [HI, {"role": "assistant", "content": "A"}, HI]),
    "nulls of a message": ([{**HI, "name": None, "tool_calls": None, "audio": None, "refusal": None}], [HI]),
    "a refusal": ([HI, {"role": "assistant", "content": None, "refusal": "No."}, HI],
                  [HI, {"role": "assistant", "content": "No."}, HI]),
    "a result without content": (
        [HI, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c1"}],
        [HI, {"role": "assistant", "content": "", "tool_calls": [CALL]},
         {"role": "tool", "tool_call_id": "c1", "content": ""}],
    ),
    "a result as an object": (
        [HI, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c1", "content": {"a": 1}}],
        [HI, {"role": "assistant", "tool_calls": [CALL]},
         {"role": "tool", "tool_call_id": "c1", "content": '{"a": 1}'}],
    ),
    "a result by the tool's name": (
        [HI, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_name": "f", "content": "1"}],
        [HI, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "name": "f", "content": "1"}],
    ),
    "arguments as an object, and no id": (
        [HI, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}, HI],
        [HI, {"role": "assistant", "tool_calls": [CALL]}, HI],
    ),
    "arguments of none": (
        [HI, {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": ""}}]}, HI],
        [HI, {"role": "assistant", "tool_calls": [CALL]}, HI],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("odd", "plain"), SAME_MESSAGES.values(), ids=SAME_MESSAGES)
def test_messages_that_say_the_same(app: Any, odd: list[Any], plain: list[Any]) -> None:
    prompts = [json.loads(post(app, "/apply-template", {"messages": each}).body)["prompt"] for each in (odd, plain)]
    assert prompts[0] == prompts[1]
    path = "/v1/chat/completions"
    assert said(app, path, chat(*odd)) == said(app, path, chat(*plain))


OPTIONS = {"temperature": 0, "num_predict": 6}
SAME_OLLAMA: dict[str, dict[str, Any]] = {
    "nulls": {"format": None, "tools": None, "keep_alive": None, "think": None, "images": None},
    "an empty format": {"format": ""},
    "how long": {"keep_alive": "5m"},
    "for ever": {"keep_alive": -1},
    "not at all": {"keep_alive": 0},
    "where it runs": {"options": {**OPTIONS, "num_ctx": 8192, "num_gpu": 99, "num_thread": 4, "use_mmap": True}},
    "samplers that do nothing": {"options": {**OPTIONS, "mirostat": 0, "tfs_z": 1, "repeat_last_n": 64, "num_keep": 4}},
    "no stops": {"options": {**OPTIONS, "stop": None, "seed": 0}},
    "no pictures": {"messages": [{**HI, "images": [], "thinking": None}]},
    "a model's tag": {"model": "tiny:latest"},
}


@pytest.mark.parametrize("more", SAME_OLLAMA.values(), ids=SAME_OLLAMA)
@pytest.mark.parametrize("stream", [False, None, True])
def test_ollamas_chat_that_says_nothing_more(app: Any, more: dict[str, Any], stream: bool | None) -> None:
    body = {"model": "tiny", "messages": [HI], "options": OPTIONS}
    assert said(app, "/api/chat", body | more | {"stream": stream}) == said(app, "/api/chat", body)


@pytest.mark.parametrize(
    "more",
    [{"n_probs": 0}, {"cache_prompt": False}, {"samplers": [], "image_data": []}, {"stop": [], "seed": None}],
)
def test_a_native_completion_that_says_nothing_more(app: Any, more: dict[str, Any]) -> None:
    assert said(app, "/completion", NATIVE | more) == said(app, "/completion", NATIVE)


# what changes something ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "more", "shown"),
    [
        ("/v1/chat/completions", {"chat_template_kwargs": {"enable_thinking": False}}, "quick<|assistant|>"),
        ("/v1/chat/completions", {"reasoning_effort": "high"}, "high<|assistant|>"),
        ("/api/chat", {"think": False, "options": OPTIONS}, "quick<|assistant|>"),
    ],
)
def test_what_templates_are_told(app: Any, llama: Llama, path: str, more: dict[str, Any], shown: str) -> None:
    text = said(app, path, chat(**more) | ({"stream": False} if path.startswith("/api") else {}))
    assert llama.spelled(llama._reply.prompt).endswith(shown)
    assert text


def test_a_bias_as_pairs(app: Any, llama: Llama) -> None:
    said(app, "/completion", NATIVE)
    first = llama.last_tokens[0]
    by_map = said(app, "/completion", NATIVE | {"logit_bias": {str(first): -100}})
    assert by_map == said(app, "/completion", NATIVE | {"logit_bias": [[first, -100]]})
    assert by_map == said(app, "/completion", NATIVE | {"logit_bias": [[first, False]]})
    assert by_map != said(app, "/completion", NATIVE)
    ids = llama.tokenize(b"of", add_bos=False)
    by_text = said(app, "/completion", NATIVE | {"logit_bias": [["of", 100]]})
    assert by_text == said(app, "/completion", NATIVE | {"logit_bias": [[token, 100] for token in ids]})


def test_mirostat_by_its_other_name(app: Any) -> None:
    warm = NATIVE | {"temperature": 1.5, "seed": 3, "n_predict": 12}
    miro = {"mirostat_tau": 0.1, "mirostat_eta": 0.1}
    found = said(app, "/completion", warm | {"mirostat": 2} | miro)
    assert found == said(app, "/completion", warm | {"mirostat_mode": 2} | miro) != said(app, "/completion", warm)


def test_no_window_is_no_penalty(app: Any) -> None:
    strict = NATIVE | {"repeat_penalty": 1.9, "n_predict": 20}
    free = said(app, "/completion", strict | {"repeat_last_n": 0})
    assert free == said(app, "/completion", NATIVE | {"n_predict": 20}) != said(app, "/completion", strict)


def test_a_text_that_must_not_end(app: Any, llama: Llama) -> None:
    for_ever = NATIVE | {"n_predict": 40, "ignore_eos": True, "logit_bias": [[llama.token_eos(), 100]]}
    assert said(app, "/completion", for_ever | {"ignore_eos": False}) == ""
    answer = json.loads(post(app, "/completion", for_ever).body)
    assert answer["tokens_predicted"] == 40 and answer["stop_type"] == "limit"


def test_limits_by_their_other_names(app: Any) -> None:
    by_other = {name: value for name, value in NATIVE.items() if name != "n_predict"} | {"max_tokens": 6}
    assert said(app, "/completion", by_other) == said(app, "/completion", NATIVE)
    body = {name: value for name, value in chat().items() if name != "max_tokens"} | {"n_predict": 6}
    assert said(app, "/v1/chat/completions", body) == said(app, "/v1/chat/completions", chat())


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_cut_short_says_so(app: Any, choice: Any, stream: bool) -> None:
    long = {"type": "object", "properties": {"a": {"type": "string", "minLength": 50}}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": long}}
    client = post(app, "/v1/chat/completions", chat(tools=[tool], tool_choice=choice, stream=stream))
    last = client.body.decode().split("data: ")[-2] if stream else client.body
    assert json.loads(last)["choices"][0]["finish_reason"] == "length"


# what is refused ----------------------------------------------------------------------------------------

REFUSED_CHATS: dict[str, tuple[dict[str, Any], str]] = {
    "a bias as a text": ({"logit_bias": "50:-100"}, "logit_bias"),
    "a bias of no token": ({"logit_bias": {"999999": 1}}, "logit_bias"),
    "a bias that is null of a pair": ({"logit_bias": [[5]]}, "logit_bias[0]"),
    "a stop that is null": ({"stop": [None]}, "stop"),
    "a stop that is a number": ({"stop": 5}, "stop"),
    "a seed as a text": ({"seed": "1"}, "seed"),
    "half a token": ({"max_tokens": 1.5}, "max_tokens"),
    "a flag as a number": ({"stream": 1}, "stream"),
    "too many": ({"n": 1000}, "n"),
    "DRY": ({"dry_multiplier": 0.8}, "dry_multiplier"),
    "XTC": ({"xtc_probability": 0.5}, "xtc_probability"),
    "an order of samplers": ({"samplers": ["top_k"]}, "samplers"),
    "a window": ({"repeat_last_n": 16, "repeat_penalty": 1.2}, "repeat_last_n"),
    "an adapter": ({"lora": [{"id": 0, "scale": 1}]}, "lora"),
    "ids that end it": ({"stop_token_ids": [5]}, "stop_token_ids"),
    "beams": ({"use_beam_search": True}, "use_beam_search"),
    "vLLM's schema": ({"guided_json": {"type": "object"}}, "guided_json"),
    "vLLM's choice": ({"guided_choice": ["a", "b"]}, "guided_choice"),
    "vLLM's pattern": ({"structured_outputs": {"regex": "a"}}, "structured_outputs"),
    "another template": ({"chat_template": "{{ messages }}"}, "chat_template"),
    "no prompt for the assistant": ({"add_generation_prompt": False}, "add_generation_prompt"),
    "an echo": ({"echo": True}, "echo"),
    "options of the template": ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    "a part of the template": ({"chat_template_kwargs": {"add_generation_prompt": False}}, "chat_template_kwargs"),
    "a format and a grammar": (
        {"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'},
        "response_format",
    ),
    "options that are none": ({"chat_template_kwargs": []}, "chat_template_kwargs"),
    "two formats": ({"json_schema": {}, "response_format": {"type": "json_object"}}, "json_schema"),
    "a schema that is none": ({"json_schema": {"type": "x"}}, "response_format"),
    "search": ({"web_search_options": {}}, "web_search_options"),
    "speech": ({"modalities": ["audio"]}, "modalities"),
    "a tool of another kind": ({"tools": [{"type": "web_search"}]}, "tools"),
    "some tools": ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice"),
    "a strict tool that cannot be": (
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"if": {}}}}]},
        "tools",
    ),
    "logprobs": ({"logprobs": True}, "logprobs"),
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0]",
    ),
    "a file": ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages[0].content[0]"),
    "a part that is null": ({"messages": [{"role": "user", "content": [None]}]}, "messages[0].content[0]"),
    "a number as content": ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    "a null message": ({"messages": [None]}, "messages[0]"),
    "no role": ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
    "a role that is a list": ({"messages": [{"role": ["user"], "content": "Hi"}]}, "messages[0].role"),
    "calls as an object": (
        {"messages": [HI, {"role": "assistant", "tool_calls": {}}]},
        "messages[1].tool_calls",
    ),
    "a call without a name": (
        {"messages": [HI, {"role": "assistant", "tool_calls": [{"id": "x"}]}]},
        "messages[1].tool_calls[0].function",
    ),
}


@pytest.mark.parametrize(("more", "param"), REFUSED_CHATS.values(), ids=REFUSED_CHATS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_that_is_refused(app: Any, more: dict[str, Any], param: str, stream: bool) -> None:
    client = post(app, "/v1/chat/completions", chat(**{"stream": stream} | more))
    error = json.loads(client.body)["error"]
    assert (client.status, error["param"]) == (400, param), error


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/chat", {"messages": [HI], "think": True}, "think"),
        ("/api/chat", {"messages": [HI], "think": "high"}, "think"),
        ("/api/chat", {"messages": [HI], "format": 5}, "format"),
        ("/api/chat", {"messages": [HI], "format": {"type": "x"}}, "#/type"),
        ("/api/chat", {"messages": [HI], "options": {"mirostat": 5}}, "mirostat"),
        ("/api/chat", {"messages": [HI], "options": {"num_predict": "many"}}, "options.num_predict"),
        ("/api/chat", {"messages": {}}, "messages"),
        ("/api/chat", {"messages": [{**HI, "images": ["AAAA"]}]}, "images"),
        ("/api/generate", {"prompt": "Hi", "context": [1, 2]}, "context"),
        ("/api/generate", {"prompt": "Hi", "images": ["AAAA"]}, "images"),
        ("/api/generate", {"prompt": "Hi", "template": "{{ .Prompt }}"}, "template"),
        ("/api/generate", {"prompt": "Hi", "suffix": "x"}, "suffix"),
        ("/api/generate", {"prompt": "Hi", "raw": True, "system": "x"}, "system"),
        ("/api/generate", {"prompt": ["Hi"]}, "prompt"),
        ("/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix"),
        ("/v1/completions", {"prompt": "a", "response_format": {"type": "json_object"}}, "response_format"),
        ("/v1/completions", {"prompt": "a", "tools": [TOOL]}, "tools"),
        ("/completion", {**NATIVE, "n_probs": 3}, "n_probs"),
        ("/completion", {**NATIVE, "post_sampling_probs": True}, "post_sampling_probs"),
        ("/completion", {**NATIVE, "image_data": [{"data": "x"}]}, "image_data"),
        ("/completion", {**NATIVE, "json_schema": {"if": {}}}, "#/if"),
        ("/completion", {**NATIVE, "json_schema": {}, "grammar": "root ::= x"}, "grammar"),
        ("/completion", {"prompt": ["a", None]}, "prompt"),
        ("/infill", {"input_prefix": "a"}, "input_suffix"),
        ("/infill", {"input_prefix": "a", "input_suffix": 5}, "input_suffix"),
        ("/infill", {"input_prefix": "a", "input_suffix": "b", "input_extra": {"text": "x"}}, "input_extra"),
    ],
)
def test_other_apis_refuse_by_name(app: Any, path: str, body: dict[str, Any], words: str) -> None:
    client = post(app, path, {"model": "tiny", **body})
    error = json.loads(client.body)["error"]
    assert client.status == 400 and words in (error if isinstance(error, str) else error["message"]), error


def test_a_body_that_is_no_text(app: Any) -> None:
    for body in (b'{"messages": NaN}', b'{"messages": "\xff"}', b"5", b"null", b'{"model": 5, "messages": []}'):
        assert ask(app, path="/v1/chat/completions", chunks=[body]).status == 400


# what nobody thought of ---------------------------------------------------------------------------------

ODD: list[Any] = [None, True, 0, -1, 1.5, 1e30, "", "x", "\ud800", [], [None], ["x"], {}, {"x": None}, [[]], [{}]]
SEEDS: list[tuple[str, dict[str, Any]]] = [
    (
        "/v1/chat/completions",
        chat(
            {"role": "system", "content": [{"type": "text", "text": "Brief."}]},
            HI,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            tools=[TOOL],
            tool_choice={"type": "function", "function": {"name": "f"}},
            logit_bias={"50": 1},
            stop=["zz"],
            max_tokens=2,
        ),
    ),
    (
        "/v1/chat/completions",
        chat(
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "x",
                    "schema": {
                        "type": "object",
                        "$defs": {"A": {"enum": ["a", 1]}},
                        "properties": {
                            "a": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]},
                            "b": {"type": "array", "items": {"type": "string", "pattern": "^a+$"}, "maxItems": 2},
                            "c": {"type": "number", "minimum": 1, "multipleOf": 2},
                        },
                        "required": ["a"],
                    },
                },
            },
            max_tokens=2,
        ),
    ),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 2, "stop": "zz", "logit_bias": {"5": 1}, "n": 1}),
    ("/api/chat", {"messages": [HI], "options": {"num_predict": 2, "stop": ["a"]}, "format": {"type": "object"}}),
    ("/completion", {**NATIVE, "n_predict": 2, "logit_bias": [[5, 1.0]], "json_schema": {"type": "object"}}),
]


LIMITS = ("max_tokens", "n_predict", "num_predict", "options")  # without one it would write until its context is full


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield from _places(each, (*path, key))


def _with(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    changed = value.copy()
    changed[path[0]] = _with(value[path[0]], path[1:], odd)
    return changed


@pytest.mark.parametrize(("path", "body"), SEEDS, ids=[f"{path} {i}" for i, (path, _) in enumerate(SEEDS)])
def test_a_value_that_is_odd_is_answered_or_refused(app: Any, path: str, body: dict[str, Any]) -> None:
    """Each place of a request in turn has something else; that is the client's fault, and never the server's."""
    draw = random.Random(path)
    for place in (place for place in _places(body) if not place or place[-1] not in LIMITS):
        for odd in draw.sample(ODD, 5):
            client = post(app, path, _with(body, place, odd))
            assert client.status in (200, 400, 404), (place, odd, client.body)
