"""Tool calls in what models write: each family has a spelling of its own, and all of them are read."""

import ast
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

_JSON = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that a model wants called."""

    name: str
    arguments: str  # JSON


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote: words, and calls."""

    content: str
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to write calls: from ``begin`` on; ``read`` gets what follows it, and gives calls and the rest."""

    begin: str
    read: Callable[[str], tuple[list[Call], str]]


def read_calls(text: str, names: Collection[str]) -> Reply:
    """The calls in a whole reply. Without a mark only tools of these ``names`` are taken for calls."""
    found = _marked(text)
    if found is None:
        found = _bare(text, names)
    return found or Reply(text)


def begin_of_calls(text: str) -> int:
    """Where in a reply so far calls begin, or may be about to; its length if there is no sign of them."""
    stripped = text.lstrip()
    if stripped[:1] in ("{", "[", "`") or "[TOOL_CALLS]".startswith(stripped[:12] or "-"):
        return 0
    places = [text.find(spelling.begin) for spelling in SPELLINGS]
    for spelling in SPELLINGS:
        for n in range(min(len(spelling.begin) - 1, len(text)), 0, -1):
            if text.endswith(spelling.begin[:n]):
                places.append(len(text) - n)
                break
    return min((place for place in places if place >= 0), default=len(text))


def _marked(text: str) -> Reply | None:
    places = [(text.find(spelling.begin), spelling) for spelling in SPELLINGS]
    found = [(place, spelling) for place, spelling in places if place >= 0]
    if not found:
        return None
    start, spelling = min(found, key=lambda each: (each[0], -len(each[1].begin)))
    calls: list[Call] = []
    content, rest = text[:start], text[start:]
    while rest.lstrip().startswith(spelling.begin):
        try:
            more, left = spelling.read(rest.lstrip()[len(spelling.begin) :])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, SyntaxError):
            break
        calls, rest = calls + more, left
    if not calls:
        return None
    rest = "" if spelling.begin in rest else rest  # a call that was cut short
    return Reply(content.rstrip() + rest.strip() if content.strip() or rest.strip() else "", tuple(calls))


def _bare(text: str, names: Collection[str]) -> Reply | None:
    """A reply that is nothing but calls: JSON, or Python as in a fence."""
    inside = re.fullmatch(r"\s*```(?:json|tool_code|tool_call|python)?\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    body = (inside[1] if inside else text).strip()
    for read in (_json_calls, _semicolons, _python_calls):
        try:
            calls, rest = read(body)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, SyntaxError):
            continue
        if calls and not rest.strip() and all(call.name in names for call in calls):
            return Reply("", tuple(calls))
    return None


# spellings ----------------------------------------------------------------------------------------------


def _call(given: Any) -> Call:
    """A call that a model has written as an object."""
    if "function" in given and isinstance(given["function"], dict):
        given = given["function"]
    name = given.get("name") or given.get("tool_name") or given["function"]
    key = next(key for key in ("arguments", "parameters", "args", "input") if key in given)
    return _made(name, given[key])


def _made(name: Any, arguments: Any) -> Call:
    if not isinstance(name, str) or not name:
        raise ValueError("a call without a name")
    if isinstance(arguments, str):
        arguments = json.loads(arguments or "{}")
    if not isinstance(arguments, dict):
        raise ValueError("arguments that are no object")
    return Call(name, json.dumps(arguments, ensure_ascii=False))


def _decode(text: str) -> tuple[Any, str]:
    text = text.lstrip()
    value, end = _JSON.raw_decode(text)
    return value, text[end:]


def _json_calls(text: str) -> tuple[list[Call], str]:
    """An object, or a list of them."""
    value, rest = _decode(text)
    return [_call(each) for each in (value if isinstance(value, list) else [value])], rest


def _semicolons(text: str) -> tuple[list[Call], str]:
    """Objects one after the other, as Llama 3 writes several."""
    calls, rest = _json_calls(text)
    while rest.lstrip(" \n;,").startswith("{"):
        more, rest = _json_calls(rest.lstrip(" \n;,"))
        calls += more
    return calls, rest


def _until(end: str, read: Callable[[str], tuple[list[Call], str]]) -> Callable[[str], tuple[list[Call], str]]:
    """What ``read`` reads, and behind it ``end``, which may be missing where the reply ended."""

    def read_all(text: str) -> tuple[list[Call], str]:
        calls, rest = read(text)
        rest = rest.lstrip()
        if rest and not rest.startswith(end):
            raise ValueError(f"no {end}")
        return calls, rest[len(end) :]

    return read_all


def _python_calls(text: str) -> tuple[list[Call], str]:
    """``[name(key="value")]``, one or several."""
    tree = ast.parse(text.strip(), mode="eval").body
    nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    return [_python_call(node) for node in nodes], ""


def _python_call(node: ast.AST) -> Call:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" and node.args:
        node = node.args[0]
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call by keywords")
    return _made(ast.unparse(node.func), {str(each.arg): _literal(each.value) for each in node.keywords})


def _literal(node: ast.AST) -> Any:
    constants = {"true": True, "false": False, "null": None}
    if isinstance(node, ast.Name) and node.id in constants:
        return constants[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        return {_literal(k): _literal(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
    return ast.literal_eval(node)


def _bracketed(end: str) -> Callable[[str], tuple[list[Call], str]]:
    """Up to ``end``: JSON, or Python."""

    def read(text: str) -> tuple[list[Call], str]:
        body, _, rest = text.partition(end)
        try:
            calls, left = _json_calls(body)
        except (ValueError, KeyError, StopIteration):
            calls, left = _python_calls(body)
        if left.strip():
            raise ValueError("more than calls")
        return calls, rest

    return read


def _tagged(text: str) -> tuple[list[Call], str]:
    """Behind ``<tool_call>``: JSON (Hermes, Qwen), ``<function=...>`` (Qwen Coder) or keys and values (GLM)."""
    if text.lstrip().startswith("{"):
        return _until("</tool_call>", _json_calls)(text)
    body, _, rest = text.partition("</tool_call>")
    if "<function=" in body:
        return list(_functions(body)), rest
    name = body.split("<arg_key>")[0].strip()
    pairs = re.findall(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", body, re.DOTALL)
    return [_made(name, {key.strip(): _value(value) for key, value in pairs})], rest


def _functions(body: str) -> Iterator[Call]:
    for name, inside in re.findall(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", body, re.DOTALL):
        if inside.strip().startswith("{"):
            yield _made(name, inside.strip())
            continue
        pairs = re.findall(r"<parameter=([^>]+)>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|\Z)", inside, re.DOTALL)
        yield _made(name, {key: _value(value) for key, value in pairs})


def _value(text: str) -> Any:
    """A value without quotes: JSON if it can be, else a text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _function_tag(text: str) -> tuple[list[Call], str]:
    """``<function=name>{...}</function>``, as Llama 3 is told to write custom tools."""
    name, _, rest = text.partition(">")
    body, _, rest = rest.partition("</function>")
    if body.strip().startswith("{"):
        return [_made(name, body.strip())], rest
    return list(_functions(f"<function={name}>{body}</function>")), rest


def _mistral(text: str) -> tuple[list[Call], str]:
    if text.lstrip().startswith(("[", "{")):
        return _json_calls(text)
    head = re.match(r"\s*([\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?", text)
    if head is None:
        raise ValueError("no name")
    arguments, rest = _decode(text[head.end() :])
    return [_made(head[1], arguments)], rest


def _deepseek(text: str) -> tuple[list[Call], str]:
    body, _, rest = text.partition("<｜tool▁calls▁end｜>")
    calls = []
    for each in body.split("<｜tool▁call▁begin｜>")[1:]:
        each = each.partition("<｜tool▁call▁end｜>")[0]
        before, _, after = each.partition("<｜tool▁sep｜>")
        if "```" in after:
            name, _, fenced = after.partition("\n")
            after = fenced.strip().removeprefix("```json").removesuffix("```")
        else:
            name = before
        calls.append(_made(name.strip(), after.strip()))
    return calls, rest


def _kimi(text: str) -> tuple[list[Call], str]:
    body, _, rest = text.partition("<|tool_calls_section_end|>")
    found = re.findall(
        r"<\|tool_call_begin\|>\s*(?:functions\.)?([\w.-]+?)(?::\d+)?\s*<\|tool_call_argument_begin\|>(.*?)<\|tool_call_end\|>",
        body,
        re.DOTALL,
    )
    return [_made(name, arguments.strip()) for name, arguments in found], rest


def _gemma(quote: str, end: str) -> Callable[[str], tuple[list[Call], str]]:
    """``call:name{key:value}`` with texts between ``quote``."""

    def read(text: str) -> tuple[list[Call], str]:
        head = re.match(r"\s*call:([\w.-]+)\s*", text)
        if head is None:
            raise ValueError("no call:")
        arguments, rest = _loose(text[head.end() :], quote)
        return [_made(head[1], arguments)], rest.lstrip().removeprefix(end)

    return read


def _loose(text: str, quote: str) -> tuple[Any, str]:
    """A value of JSON whose keys may lack quotes, and whose texts may have other ones."""
    text = text.lstrip()
    if text.startswith(quote):
        value, found, rest = text[len(quote) :].partition(quote)
        if not found:
            raise ValueError("a text without an end")
        return value, rest
    if text[:1] in ("{", "["):
        return _loose_container(text, quote)
    if text[:1] == '"':
        return _decode(text)
    word = re.match(r"[^,}\]\s]+", text)
    if word is None:
        raise ValueError("no value")
    return _value(word[0]), text[word.end() :]


def _loose_container(text: str, quote: str) -> tuple[Any, str]:
    close, items = {"{": "}", "[": "]"}[text[0]], list[Any]()
    rest = text[1:].lstrip()
    while not rest.startswith(close):
        key = None
        if close == "}":
            key, rest = _loose_key(rest, quote)
        value, rest = _loose(rest, quote)
        items.append((key, value) if close == "}" else value)
        rest = rest.lstrip()
        rest = rest[1:].lstrip() if rest.startswith(",") else rest
        if not rest:
            raise ValueError(f"no {close}")
    return (dict(items) if close == "}" else items), rest[1:]


def _loose_key(text: str, quote: str) -> tuple[str, str]:
    if text.startswith((quote, '"')):
        key, rest = _loose(text, quote)
    else:
        key, _, rest = text.partition(":")
        return key.strip(), rest
    if not rest.lstrip().startswith(":"):
        raise ValueError("a key without a value")
    return str(key), rest.lstrip()[1:]


SPELLINGS = (
    Spelling("<tool_call>", _tagged),
    Spelling("<|tool_call|>", _until("<|/tool_call|>", _json_calls)),  # Phi, Granite
    Spelling("<function=", _function_tag),
    Spelling("<|python_tag|>", _semicolons),  # Llama 3
    Spelling("[TOOL_CALLS]", _mistral),
    Spelling("<|tool_call_start|>", _bracketed("<|tool_call_end|>")),  # LFM2
    Spelling("<start_function_call>", _gemma("<escape>", "<end_function_call>")),
    Spelling("<|tool_call>", _gemma('<|"|>', "<tool_call|>")),
    Spelling("<|START_ACTION|>", _until("<|END_ACTION|>", _json_calls)),  # Command R
    Spelling("<｜tool▁calls▁begin｜>", _deepseek),
    Spelling("<|tool_calls_section_begin|>", _kimi),
)
MARKS = (  # texts of which calls are made up, and which may be tokens that are not shown otherwise
    *(spelling.begin for spelling in SPELLINGS),
    *("</tool_call>", "<|/tool_call|>", "[ARGS]", "[CALL_ID]", "<|tool_call_end|>", "<escape>", "<end_function_call>"),
    *(
        '<|"|>',
        "<tool_call|>",
        "<|END_ACTION|>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
    ),
    *("<｜tool▁sep｜>", "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>"),
    "<|tool_call_end|>",
)
