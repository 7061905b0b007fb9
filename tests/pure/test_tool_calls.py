"""Tool calls are read out of what models of each family write, recorded from their templates' own spelling."""

import json
from typing import Any

import pytest

from cadcpp.chat.messages import MessageError, plain_messages, with_short_ids, with_text_arguments
from cadcpp.chat.tool_calls import begin_of_calls, read_calls
from cadcpp.chat.tool_grammar import FAMILIES, calls_rule, family_of, told_of_tools, words_or_calls_rule
from cadcpp.schema.rules import Rules, literal
from tests.support.gbnf import Gbnf

NAMES = ["get_weather", "add"]
PARIS = {"city": "Paris"}
REPLIES = {
    "Hermes, Qwen": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
    "Hermes without its end": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}',
    "arguments as a text": '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
    "Qwen Coder": "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n"
    "</tool_call>",
    "GLM": "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
    "Llama 3": '{"name": "get_weather", "parameters": {"city": "Paris"}}',
    "Llama 3 with its tag": '<|python_tag|>{"type": "function", "name": "get_weather", '
    '"parameters": {"city": "Paris"}}',
    "Llama 3, custom tools": '<function=get_weather>{"city": "Paris"}</function>',
    "Mistral": '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abc123def"}]',
    "Mistral, newer": '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}',
    "Mistral with ids": '[TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{"city": "Paris"}',
    "LFM2": '<|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>',
    "LFM2, JSON": '<|tool_call_start|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]<|tool_call_end|>',
    "Gemma in a fence": "```tool_code\nget_weather(city='Paris')\n```",
    "Gemma, printed": "```tool_code\nprint(get_weather(city='Paris'))\n```",
    "JSON in a fence": '```json\n{"name": "get_weather", "parameters": {"city": "Paris"}}\n```',
    "Function Gemma": "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>",
    "Gemma 4": '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>',
    "Granite": '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]',
    "Phi": '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]<|/tool_call|>',
    "Command R": '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "get_weather", '
    '"parameters": {"city": "Paris"}}]<|END_ACTION|>',
    "DeepSeek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
    '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "DeepSeek, newer": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
    '{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "Kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
    '{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>',
}


@pytest.mark.parametrize("text", REPLIES.values(), ids=REPLIES)
def test_a_call_is_read(text: str) -> None:
    reply = read_calls(text, NAMES)
    assert [(call.name, json.loads(call.arguments)) for call in reply.calls] == [("get_weather", PARIS)]
    assert reply.content == ""


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n<tool_call>\n'
        '{"name": "add", "arguments": {"a": 2}}\n</tool_call>',
        '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": {"a": 2}}]',
        '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]add[ARGS]{"a": 2}',
        "<|tool_call_start|>[add(a=1), add(a=2)]<|tool_call_end|>",
        '{"name": "add", "parameters": {"a": 1}}; {"name": "add", "parameters": {"a": 2}}',
        "<start_function_call>call:add{a:1}<end_function_call><start_function_call>call:add{a:2}<end_function_call>",
    ],
)
def test_several_calls_are_read(text: str) -> None:
    assert [json.loads(call.arguments) for call in read_calls(text, NAMES).calls] == [{"a": 1}, {"a": 2}]


def test_words_before_a_call_stay() -> None:
    reply = read_calls('Let me look.\n<tool_call>{"name": "add", "arguments": {}}</tool_call>', NAMES)
    assert (reply.content, len(reply.calls)) == ("Let me look.", 1)


def test_a_call_that_was_cut_short_is_left_out() -> None:
    whole = '<tool_call>{"name": "add", "arguments": {}}</tool_call>\n'
    assert read_calls(f'{whole}<tool_call>{{"name": "ad', NAMES) == read_calls(whole, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "Paris is sunny.",
        '{"name": "Tom", "arguments": {}}',  # none of the tools
        '{"city": "Paris"}',
        "<tool_call>\n{not JSON}\n</tool_call>",
        '<tool_call>{"name": "add", "arguments": [1]}</tool_call>',
        "[1, 2, 3]",
        "```python\nprint(1)\n```",
        "<|tool_call_start|>[__import__('os').system('x')]<|tool_call_end|>",
        "[" * 100_000,
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    reply = read_calls(text, NAMES)
    assert (reply.content, reply.calls) == (text, ())


@pytest.mark.parametrize("text", REPLIES.values(), ids=REPLIES)
def test_nothing_of_a_call_is_shown_in_a_stream(text: str) -> None:
    shown = [begin_of_calls(f"Hm. {text}"[:n]) for n in range(len(text) + 4)]
    assert text.startswith(("{", "```")) or max(shown) <= 4
    assert all(begin_of_calls(text[:n]) == 0 for n in range(1, len(text)))


def test_words_are_shown_as_they_come() -> None:
    assert begin_of_calls("a < b") == 5 and begin_of_calls("a <tool") == 2 and begin_of_calls("a <tools") == 8


# grammars -----------------------------------------------------------------------------------------------

TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in {
        "get_weather": {
            "type": "object",
            "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{2,5}$"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
        "add": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
    }.items()
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.sign)
@pytest.mark.parametrize("seed", range(5))
def test_what_a_familys_grammar_lets_through_is_read_as_calls(family: Any, seed: int) -> None:
    rules = Rules()
    text = Gbnf(rules.grammar(calls_rule(rules, family, TOOLS, True))).sample(seed, 5000)
    reply = read_calls(text, NAMES)
    assert reply.calls and reply.content == "" and {call.name for call in reply.calls} <= set(NAMES)
    assert all(set(json.loads(call.arguments)) <= {"city", "days", "a"} for call in reply.calls)


STRICT = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}, *TOOLS[1:]]


CALLED: list[tuple[str, Any, bool]] = [
    ("get_weather", {"city": "Rome"}, True),
    ("get_weather", {"town": 5}, False),
    ("add", {"x": [1]}, True),  # it is not strict
]


@pytest.mark.parametrize("family", FAMILIES[::5], ids=lambda family: family.sign)
def test_strict_calls_are_right_where_words_are_free(family: Any) -> None:
    rules = Rules()
    calls = calls_rule(rules, family, STRICT, True, loose=True)
    grammar = Gbnf(rules.grammar(words_or_calls_rule(rules, family, calls)))
    assert all(map(grammar.accepts, ["It is 5 < 6.", 'Say "no" {or} not [a]:\n\n```py\n1```', "", "日本"]))
    for name, given, fits in CALLED:
        call = Gbnf(f"root ::= {family.call(name, literal(json.dumps(given)))}\n").sample(0)
        text = f"{family.begin}{call}{family.end}"
        assert grammar.accepts(text) == fits
        assert grammar.accepts(f"Well: {text}") == (fits or family.begin == "")  # which is read as words
    assert not grammar.accepts('<function=get_weather>{"town": 5}</function>')


def test_families_are_told_by_their_templates() -> None:
    signs = {"x [TOOL_CALLS] y": "[TOOL_CALLS]", "[TOOL_CALLS]a[ARGS]": "[ARGS]", "<|python_tag|>": "<|python_tag|>"}
    assert {source: family_of(source).sign for source in signs} == signs
    assert family_of("<tool_call>").sign == family_of("nothing").sign == "<tool_call>"


# messages -----------------------------------------------------------------------------------------------


def test_messages_as_clients_send_them() -> None:
    found = plain_messages(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": None},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "42"}]},
            {"role": "assistant", "function_call": {"name": "g", "arguments": ""}},
            {"role": "function", "name": "g", "content": "1"},
        ]
    )
    assert [message["role"] for message in found] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert [message["content"] for message in found] == ["Be brief.", "a\nb", "", "42", "", "1"]
    assert found[2]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert found[3]["name"] == "f" and found[4]["tool_calls"][0]["function"]["arguments"] == {}
    assert with_text_arguments(found)[2]["tool_calls"][0]["function"]["arguments"] == '{"x": 1}'
    short = with_short_ids(found)
    assert len(short[2]["tool_calls"][0]["id"]) == 9 and short[3]["tool_call_id"] == short[2]["tool_calls"][0]["id"]
    told = told_of_tools(found, TOOLS)
    assert "get_weather" in told[0]["content"] and "<tool_call>" in told[2]["content"]
    assert told[3] == {"role": "user", "content": "<tool_response>\n42\n</tool_response>"}


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([], "messages"),
        ("hi", "messages"),
        ([5], "messages[0]"),
        ([{"role": "nobody", "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0].function"),
        ([{"role": "assistant", "tool_calls": {}}], "messages[0].tool_calls"),
    ],
)
def test_a_message_that_cannot_be_read_is_named(messages: Any, place: str) -> None:
    with pytest.raises(MessageError) as caught:
        plain_messages(messages)
    assert caught.value.place == place
