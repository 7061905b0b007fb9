"""Messages as clients send them, in the one form that chat templates expect."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from cadcpp.errors import ConfigError

Message = dict[str, Any]
_ROLES = {  # what clients say, and what templates know
    **dict.fromkeys(("system", "developer"), "system"),
    "user": "user",
    "assistant": "assistant",
    **dict.fromkeys(("tool", "function"), "tool"),
}
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_KEPT = {  # ollama's names beside OpenAI's and llama-server's
    **{name: name for name in ("name", "tool_call_id", "reasoning_content")},
    "tool_name": "name",
    "thinking": "reasoning_content",
}


class MessageError(ConfigError):
    """A message that cannot be read; ``place`` says which, such as ``messages[2].content``."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place} {what}")
        self.place = place


def plain_messages(messages: Any) -> list[Message]:
    """``messages`` with texts as contents, and arguments of tool calls as objects. Raises MessageError."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise MessageError("messages", "must be a list of at least one message")
    found: list[Message] = []
    for i, message in enumerate(messages):
        found.append(_plain(message, f"messages[{i}]", found))
    return found


def _plain(message: Any, place: str, before: list[Message]) -> Message:
    if not isinstance(message, Mapping):
        raise MessageError(place, f"must be an object, got {type(message).__name__}")
    given = message.get("role")
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        raise MessageError(f"{place}.role", f"must be one of {', '.join(_ROLES)}, got {given!r}")
    plain: Message = {"role": role, "content": _content(message, role, f"{place}.content")}
    plain |= {name: message[key] for key, name in _KEPT.items() if isinstance(message.get(key), str)}
    if role == "assistant" and (calls := _calls(message, place)):
        plain["tool_calls"] = calls
    if role == "tool" and "name" not in plain and (name := _name_of(plain.get("tool_call_id"), before)):
        plain["name"] = name
    return plain


def _content(message: Mapping[str, Any], role: str, place: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_part(part, f"{place}[{i}]") for i, part in enumerate(content))
    if content is None and role in ("assistant", "tool"):
        refusal = message.get("refusal")
        return refusal if isinstance(refusal, str) else ""
    if content is None:
        raise MessageError(place, f"is missing: a {role} message needs a text")
    if role == "tool":  # some send what the tool returned as it is
        return json.dumps(content, ensure_ascii=False)
    raise MessageError(place, f"must be a text or a list of parts, got {type(content).__name__}")


def _part(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        kind = part.get("type", "text")
        text = part.get("refusal" if kind == "refusal" else "text")
        if kind in _TEXT_PARTS and isinstance(text, str):
            return text
        if kind not in _TEXT_PARTS:
            raise MessageError(place, f"has the type {kind!r}, and this model reads text only")
    raise MessageError(place, 'must be a part such as {"type": "text", "text": "..."}')


def _calls(message: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    given = message.get("tool_calls")
    if given is None and isinstance(message.get("function_call"), Mapping):
        given = [{"function": message["function_call"]}]
    if given is not None and not isinstance(given, list):
        raise MessageError(f"{place}.tool_calls", "must be a list")
    return [_call(call, i, f"{place}.tool_calls[{i}]") for i, call in enumerate(given or ())]


def _call(call: Any, i: int, place: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise MessageError(f"{place}.function", "must be an object with a name and arguments")
    name, arguments = function["name"], function.get("arguments")
    given = {} if arguments in (None, "") else arguments
    return {
        "id": call.get("id") or f"call_{i}",
        "type": "function",
        "function": {"name": name, "arguments": _object(given)},
    }


def _object(arguments: Any) -> Any:
    """Arguments as templates expect them: parsed, unless a model wrote what is no object."""
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


def _name_of(call_id: str | None, before: list[Message]) -> str | None:
    """The tool that a result answers: that of the call with its id, or else of the last one."""
    calls = [call for message in before for call in message.get("tool_calls", ())]
    found = [call for call in calls if call["id"] == call_id] or (calls[-1:] if call_id is None else [])
    return str(found[-1]["function"]["name"]) if found else None


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The same with what the system says at the beginning of the next message, for a template that has no place for it.

    As llama.cpp's `common/chat.cpp` has it; where there is no other message, the user says it.
    """
    system, *rest = messages
    if not rest:
        return [{**system, "role": "user"}]
    return [{**rest[0], "content": f"{system['content']}\n{rest[0]['content']}"}, *rest[1:]]


def takes_system(render: Callable[[list[Message]], object]) -> bool:
    """Whether a template looks at what a system message says; others refuse it, or leave it out."""
    system = _Watched(role="system", content="Be brief.")
    with suppress(Exception):  # a template is code from the model file and may raise anything
        render([system, {"role": "user", "content": "Hi"}])
    return system.was_read


class _Watched(Message):
    """A message that knows whether its content was read."""

    was_read = False

    def __getitem__(self, key: str) -> Any:
        self.was_read |= key == "content"
        return super().__getitem__(key)

    def get(self, key: str, *default: Any) -> Any:
        self.was_read |= key == "content"
        return super().get(key, *default)

    def items(self) -> Any:
        self.was_read = True
        return super().items()

    def values(self) -> Any:
        self.was_read = True
        return super().values()


def with_text_arguments(messages: Sequence[Message]) -> list[Message]:
    """The same with arguments as JSON texts, which some templates put together with ``+``."""
    return [_with_calls(message, lambda call: _spelled(call)) for message in messages]


def _spelled(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _with_calls(message: Message, change: Any) -> Message:
    return (
        {**message, "tool_calls": [change(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
    )


def with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """The same with ids of nine letters and digits, as Mistral's templates demand."""
    found = []
    for message in messages:
        message = _with_calls(message, lambda call: {**call, "id": _short(call["id"])})
        if "tool_call_id" in message:
            message = {**message, "tool_call_id": _short(message["tool_call_id"])}
        found.append(message)
    return found


def _short(call_id: str) -> str:
    letters = re.sub("[^a-zA-Z0-9]", "", call_id)
    return letters[-9:].rjust(9, "0")
