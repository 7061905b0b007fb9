"""How a model is told of tools and made to call one: its family's own spelling, by the signs of its template."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cadcpp.chat.messages import Message
from cadcpp.chat.tool_calls import SPELLINGS
from cadcpp.errors import ConfigError
from cadcpp.schema.automaton import Automaton, automaton
from cadcpp.schema.charset import SPACE, CharSet
from cadcpp.schema.grammar import schema_rule
from cadcpp.schema.language import ALL, Chars, both, concat, either, negate, repeat, text
from cadcpp.schema.place import SchemaError
from cadcpp.schema.rules import Rules, choice, literal

_MOST_CALLS = 8  # in one reply; a greedy model may repeat itself
_PROMPT = """You may call functions to help with the user's request. These are the functions:
<tools>
{tools}
</tools>
To call a function, answer with nothing but an object with its name and arguments between <tool_call> tags:
<tool_call>
{{"name": "function", "arguments": {{"key": "value"}}}}
</tool_call>"""


@dataclass(frozen=True, slots=True)
class Family:
    """How models of a family write one call, and several."""

    sign: str  # what their templates contain
    begin: str
    call: Callable[[str, str], str]  # of a name and the rule of its arguments
    between: str | None  # None: they write one call only
    end: str


def _object(key: str) -> Callable[[str, str], str]:
    """A JSON object with a name, and the arguments under ``key``."""

    def call(name: str, rule: str) -> str:
        before = f'{{"name": {json.dumps(name)}, "{key}": '
        return f'{literal(before)} {rule} "}}"'

    return call


def _plainly(before: str, after: str) -> Callable[[str, str], str]:
    return lambda name, rule: f"{literal(before + name + after)} {rule}"


_TAGGED = Family(
    "<tool_call>", "<tool_call>\n", _object("arguments"), "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"
)
FAMILIES = (  # the first whose sign is there
    Family("[ARGS]", "[TOOL_CALLS]", _plainly("", "[ARGS]"), "[TOOL_CALLS]", ""),
    Family("[TOOL_CALLS]", "[TOOL_CALLS][", _object("arguments"), ", ", "]"),
    Family("<|tool_call_start|>", "<|tool_call_start|>[", _object("arguments"), ", ", "]<|tool_call_end|>"),
    Family("<|tool_list_start|>", "<|tool_call_start|>[", _object("arguments"), ", ", "]<|tool_call_end|>"),
    Family(
        "<start_function_call>",
        "<start_function_call>",
        _plainly("call:", ""),
        "<end_function_call><start_function_call>",
        "<end_function_call>",
    ),
    Family("<|tool_call>", "<|tool_call>", _plainly("call:", ""), "<tool_call|><|tool_call>", "<tool_call|>"),
    Family("<|tool_call|>", "<|tool_call|>[", _object("arguments"), ", ", "]"),
    Family("<|python_tag|>", "", _object("parameters"), None, ""),
    Family("ipython", "", _object("parameters"), None, ""),
    _TAGGED,
)


def family_of(template: str) -> Family:
    """The family whose template this is. One that knows no tools is told of them, and of a spelling."""
    return next((family for family in FAMILIES if family.sign in template), _TAGGED)


def knows_tools(template: str) -> bool:
    return "tools" in template


def told_of_tools(messages: Sequence[Message], tools: Sequence[Any]) -> list[Message]:
    """Messages for a template that knows no tools: they are in the system message, calls and results in the texts."""
    prompt = _PROMPT.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    told = [_in_words(message) for message in messages]
    if told and told[0]["role"] == "system":
        return [{**told[0], "content": f"{told[0]['content']}\n\n{prompt}"}, *told[1:]]
    return [{"role": "system", "content": prompt}, *told]


def _in_words(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    if "tool_calls" not in message:
        return message
    calls = [
        f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>"
        for call in message["tool_calls"]
    ]
    return {"role": "assistant", "content": "\n".join([*filter(None, [message["content"]]), *calls])}


def words_or_calls_rule(rules: Rules, family: Family, calls: str) -> str:
    """The rule for a reply that may have calls by the rule ``calls``, and has none that are read without it."""
    words = rules.content(_words_without_calls(family.begin == ""), raw=True)
    return rules.add(f"{words} | {calls}" if family.begin == "" else f"{words} ({calls})?")


@cache
def _words_without_calls(bare: bool) -> Automaton:
    """Texts in which no spelling of a call begins; where calls have no mark, also none that begin as they do."""
    marked = concat(ALL, either(text(spelling.begin) for spelling in SPELLINGS), ALL)
    begun = concat(repeat(Chars(SPACE), 0, None), Chars(CharSet.of("{[`")), ALL)
    found = automaton(both((negate(marked), negate(begun) if bare else ALL)))
    assert found is not None
    return found


def calls_rule(rules: Rules, family: Family, tools: Sequence[Any], several: bool, loose: bool = False) -> str:
    """The rule for calls of any of ``tools``; if ``loose``, arguments of those that are not strict are any.

    Raises ConfigError.
    """
    calls = []
    for function in (tool["function"] for tool in tools):
        rule = "object" if loose and not function.get("strict") else arguments_rule(rules, function)
        calls.append(rules.add(family.call(function["name"], rule)))
    call = rules.add(choice(calls))
    more = (
        f" ({literal(family.between)} {call}){{0,{_MOST_CALLS - 1}}}" if several and family.between is not None else ""
    )
    return rules.add(f"{literal(family.begin)} {call}{more} {literal(family.end)}")


def arguments_rule(rules: Rules, function: Any) -> str:
    """The rule of a function's arguments. Raises ConfigError."""
    try:
        return schema_rule(rules, function.get("parameters") or {"type": "object", "properties": {}})
    except SchemaError as error:
        raise ConfigError(f"tools: {function['name']}: {error}") from None


def checked_tools(tools: Any) -> list[Any]:
    """Tools that have names. Raises ConfigError."""
    if not isinstance(tools, list):
        raise ConfigError(f"tools must be a list, got {type(tools).__name__}")
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise ConfigError(f"tools[{i}].function must be an object with a name")
        if not isinstance(function.get("parameters") or {}, dict):
            raise ConfigError(f"tools[{i}].function.parameters must be a JSON schema")
    return tools
