"""Tools that must be called are called validly, in each family's spelling, and the same with and without drafts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cadcpp import Llama
from cadcpp.errors import ConfigError
from cadcpp.llama import options as own_options
from tests.support.oracle import whole

from llama_cpp import LlamaGrammar  # isort: skip

_MESSAGES = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
TEMPLATES = {  # what is looked at in the families' own
    "Hermes, Qwen": _MESSAGES + "{% if tools %}<tools>{{ tools | tojson }}</tools> answer in <tool_call>{% endif %}",
    "Llama 3": _MESSAGES + "{% if tools is not none %}{{ tools | tojson }} <|python_tag|>{% endif %}",
    "Mistral": _MESSAGES + "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }} {# [TOOL_CALLS] #}{% endif %}",
    "LFM2": _MESSAGES + "{% if tools %}<|tool_list_start|>{{ tools | tojson }}<|tool_list_end|>{% endif %}",
    "Gemma": _MESSAGES + "{% if tools %}{{ tools | tojson }} <start_function_call>{% endif %}",
    "none of tools": _MESSAGES,
}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "book",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "pattern": "^[A-Z][a-z]{1,6}$"},
                    "nights": {"type": "integer", "minimum": 1, "maximum": 14},
                    "room": {"enum": ["single", "double"]},
                    "note": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
                },
                "required": ["city", "nights", "room"],
            },
        },
    },
    {"type": "function", "function": {"name": "stop", "description": "No arguments."}},
]
ASK = [{"role": "user", "content": "Book a room."}]


def check(call: Any) -> None:
    """Raise AssertionError unless a call is one of the tools' and right."""
    name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
    if name == "stop":
        assert arguments == {}
        return
    assert name == "book" and {"city", "nights", "room"} <= set(arguments) <= {"city", "nights", "room", "note"}
    assert arguments["city"].isalpha() and 2 <= len(arguments["city"]) <= 7
    assert 1 <= arguments["nights"] <= 14 and arguments["room"] in ("single", "double")
    assert arguments.get("note") is None or len(arguments["note"]) <= 5


@pytest.fixture(scope="module", params=TEMPLATES)
def pair(request: pytest.FixtureRequest, tiny: Callable[..., Path]) -> Any:
    template = TEMPLATES[request.param]
    model, draft = tiny(type_name="Q8_0", chat_template=template), tiny(type_name="Q8_0", noise=0.02)
    options: dict[str, Any] = {"n_ctx": 2048, "n_threads": 1, "verbose": False}
    with Llama(str(model), draft_model_path=draft, **options) as mine:
        with Llama(str(model), speculative="off", **options) as plain:
            yield mine, plain


SEEDS = [pytest.param(seed, marks=[pytest.mark.slow] if seed else []) for seed in range(50)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_required_call_is_valid_and_the_same_without_drafts(pair: Any, seed: int) -> None:
    given: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "seed": seed, "temperature": 1.0}
    given |= {"max_tokens": 1500, "parallel_tool_calls": seed % 5 == 4}
    answers = [llama.create_chat_completion(ASK, **given) for llama in pair]
    choice = answers[0]["choices"][0]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    for call in choice["message"]["tool_calls"]:
        check(call)
        call["id"] = ""
    for call in answers[1]["choices"][0]["message"]["tool_calls"]:
        call["id"] = ""
    assert whole(answers[0]) == whole(answers[1])


@pytest.mark.parametrize("seed", range(2))
def test_strict_tools_that_may_be_called_change_no_text_with_drafts(pair: Any, seed: int) -> None:
    tools = [{**tool, "function": {**tool["function"], "strict": True}} for tool in TOOLS]
    given: dict[str, Any] = {"tools": tools, "seed": seed, "temperature": 1.0, "max_tokens": 60}
    answers = [llama.create_chat_completion(ASK, **given) for llama in pair]
    for answer in answers:
        for call in answer["choices"][0]["message"].get("tool_calls", ()):
            check(call)
            call["id"] = ""
    assert whole(answers[0]) == whole(answers[1])


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if m.role == 'user' %}user: {{ m.content }}\n{% endif %}{% endfor %}",
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}",
    ],
    ids=["left out", "refused"],
)
def test_what_the_system_says_is_never_left_out(tiny: Callable[..., Path], template: str) -> None:
    with Llama(str(tiny(chat_template=template)), n_ctx=64, n_threads=1, verbose=False) as llama:
        system = {"role": "system", "content": "Brief."}
        assert llama.chat_prompt([system, {"role": "user", "content": "Hi"}]) == "user: Brief.\nHi\n"
        assert llama.chat_prompt([system]) == "user: Brief.\n"


def test_a_grammar_and_a_format_are_not_both_taken(pair: Any) -> None:
    with pytest.raises(ConfigError, match="response_format and grammar"):
        grammar = LlamaGrammar.from_string('root ::= "a"')
        pair[0].create_chat_completion(ASK, response_format={"type": "json_object"}, grammar=grammar)


def test_calls_and_results_go_into_the_prompt(pair: Any) -> None:
    called = {"id": "call_abcdefghi", "type": "function", "function": {"name": "stop", "arguments": "{}"}}
    messages = [*ASK, {"role": "assistant", "content": None, "tool_calls": [called]}]
    messages += [{"role": "tool", "tool_call_id": "call_abcdefghi", "content": [{"type": "text", "text": "done 42"}]}]
    prompt = pair[0].chat_prompt(messages, TOOLS)
    assert "done 42" in prompt and '"book"' in prompt
    answer = pair[0].create_chat_completion(messages, tools=TOOLS, max_tokens=4, temperature=0)
    assert answer["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tool_choice": "required"}, "tools has none"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "'x', which is not among"),
        ({"tools": [{"type": "function", "function": {}}]}, r"tools\[0\]"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"if": {}}}}],
                "tool_choice": "required",
            },
            "tools: f: .*#/if",
        ),
        ({"response_format": {"type": "json_object", "schema": {"type": "x"}}}, "#/type"),
    ],
)
def test_what_cannot_be_is_refused(pair: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        pair[0].create_chat_completion(ASK, **options)


# other ways into the class ------------------------------------------------------------------------------


def test_names_that_upstream_swallows_warn_once(tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with Llama(str(tiny()), n_ctx=64, n_threads=1, verbose=False, n_parts=-1, f16_kv=True) as llama:
            assert llama.speculates
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "'n_parts'" in text]) <= 1


def test_rope_values_of_the_file_are_the_default(tiny: Callable[..., Path]) -> None:
    options: dict[str, Any] = {"n_ctx": 64, "n_threads": 1, "verbose": False}
    texts = []
    ropes: list[dict[str, Any]] = [{}, {"rope_freq_base": 10000.0, "rope_freq_scale": 1.0}, {"rope_freq_base": 500.0}]
    for rope in ropes:
        with Llama(
            str(tiny(type_name="Q8_0")), draft_model_path=tiny(type_name="Q8_0", noise=0.02), **options, **rope
        ) as llama:
            assert llama.speculates
            texts.append(llama("abc abc", max_tokens=20, temperature=0)["choices"][0]["text"])
    assert texts[0] == texts[1] != texts[2]


def test_another_rope_gives_the_text_of_plain_decoding(tiny: Callable[..., Path]) -> None:
    options: dict[str, Any] = {"n_ctx": 64, "n_threads": 1, "verbose": False, "rope_freq_base": 500.0}
    model, draft = tiny(type_name="Q8_0"), tiny(type_name="Q8_0", noise=0.02)
    with (
        Llama(str(model), draft_model_path=draft, **options) as mine,
        Llama(str(model), speculative="off", **options) as plain,
    ):
        results = [whole(llama("abc abc", max_tokens=30, seed=3)) for llama in (mine, plain)]
        assert results[0] == results[1] and mine.last_stats.tokens_per_pass > 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type_k": 1}, "type_k=1"),
        ({"n_ctx": 4096}, "n_ctx=4096, more than the 2048"),
        ({"embedding": True}, "embedding=True"),
        ({"speculative": "off"}, "draft_model_path has no effect: speculative='off'"),
    ],
)
def test_settings_without_effect_are_told(
    tiny: Callable[..., Path],
    options: dict[str, Any],
    words: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_options, "_said", set())
    given = {"n_ctx": 64, "n_threads": 1, "verbose": False} | options
    with Llama(str(tiny()), draft_model_path=tiny(noise=0.02), **given) as llama:
        assert llama.speculates == ("speculative" in options)
    assert words in caplog.text and "draft_model_path" in caplog.text


@pytest.mark.parametrize("name", ["tools", "documents"])
def test_a_template_is_told_that_there_are_no_tools_and_no_documents(tiny: Callable[..., Path], name: str) -> None:
    template = f"{{% if {name} is not none %}}{{{{ raise_exception('{name}') }}}}{{% endif %}}{_MESSAGES}"
    with Llama(str(tiny(chat_template=template)), n_ctx=64, n_threads=1, verbose=False) as llama:
        assert llama.chat_prompt([{"role": "user", "content": "Hi"}]) == "user: Hi\n"
