"""Chat completions of the class: messages as clients send them, tools that are really called, schemas that are kept."""

import json
import re
import secrets
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cadcpp.chat.messages import (
    Message,
    plain_messages,
    takes_system,
    with_short_ids,
    with_text_arguments,
    without_system,
)
from cadcpp.chat.tool_calls import Call, begin_of_calls, read_calls
from cadcpp.chat.tool_grammar import (
    Family,
    arguments_rule,
    calls_rule,
    checked_tools,
    family_of,
    knows_tools,
    told_of_tools,
    words_or_calls_rule,
)
from cadcpp.errors import CadError, ConfigError
from cadcpp.schema.grammar import schema_grammar, schema_rule
from cadcpp.schema.rules import Rules

from llama_cpp import LlamaGrammar, llama_chat_format  # isort: skip

_OF_PROMPT = ("functions", "function_call", "tools", "tool_choice", "messages", "chat_template_kwargs")
_NOT_OF_COMPLETIONS = (*_OF_PROMPT, "response_format", "grammar", "logprobs", "top_logprobs")
_OF_TEMPLATES = ("messages", "bos_token", "eos_token", "raise_exception", "strftime_now", "add_generation_prompt")
_ID_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Tools:
    """What may, must or is to be called."""

    all: list[Any]
    family: Family  # of the template
    choice: str  # "auto", "required" or "named"; of "none" there is no object
    legacy: bool = False  # asked for as functions
    several: bool = True

    @property
    def strict(self) -> bool:
        """Whether calls that may be made have to be right."""
        return self.choice == "auto" and any(tool["function"].get("strict") for tool in self.all)

    @property
    def unmarked(self) -> list[str]:
        """Names that make a call of a reply without a mark. What strict calls may be, only their mark can tell."""
        return [] if self.strict and self.family.begin else self.names

    @property
    def names(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.all]


def chat_completion(llama: Any, wanted: dict[str, Any], parallel: bool = True) -> Any:
    """An answer to ``create_chat_completion`` with these arguments, or its chunks. Raises ConfigError."""
    handler = _handler(llama)
    formatter = _formatter_of(handler)
    if formatter is None:
        return _by_handler(handler, llama, wanted)
    tools = chosen_tools(wanted, family_of(_source(formatter)), parallel)
    result = _render(formatter, plain_messages(wanted["messages"]), wanted, tools)
    call = {key: value for key, value in wanted.items() if key not in _NOT_OF_COMPLETIONS}
    call["prompt"] = llama.tokenize(result.prompt.encode(), add_bos=not result.added_special, special=True)
    call["stop"] = _stops(wanted["stop"], result.stop)
    call["stopping_criteria"] = result.stopping_criteria
    call["grammar"] = _grammar(wanted, tools)
    call["logprobs"] = (wanted["top_logprobs"] or 0) if wanted["logprobs"] else None
    return _answer(llama, call, tools)


def chat_prompt(llama: Any, wanted: dict[str, Any]) -> str:
    """The text that an answer to these messages continues. Raises ConfigError."""
    formatter = _formatter_of(_handler(llama))
    if formatter is None:
        raise ConfigError(f"the chat format {llama.chat_format} makes its prompts as it goes")
    tools = chosen_tools(wanted, family_of(_source(formatter)))
    return str(_render(formatter, plain_messages(wanted["messages"]), wanted, tools).prompt)


def chat_formats() -> list[str]:
    """Names of upstream's chat formats."""
    return sorted(llama_chat_format.LlamaChatCompletionHandlerRegistry()._chat_handlers)


def _handler(llama: Any) -> Any:
    return (
        llama.chat_handler
        or llama._chat_handlers.get(llama.chat_format)
        or llama_chat_format.get_chat_completion_handler(llama.chat_format)
    )


def _formatter_of(handler: Any) -> Any:
    """The formatter that upstream made a handler of; None if it is one of another kind."""
    code, cells = getattr(handler, "__code__", None), getattr(handler, "__closure__", None) or ()
    names = code.co_freevars if code is not None else ()
    return dict(zip(names, (cell.cell_contents for cell in cells), strict=True)).get("chat_formatter")


def _by_handler(handler: Any, llama: Any, wanted: dict[str, Any]) -> Any:
    """What upstream's special handlers give, with a grammar of ours in the place of theirs."""
    grammar, wanted = wanted["grammar"], dict(wanted)
    if wanted.pop("chat_template_kwargs"):
        raise ConfigError(f"chat_template_kwargs are for templates, and the chat format {llama.chat_format} has none")
    if (found := response_grammar(wanted["response_format"])) is not None:
        grammar, wanted = found, {**wanted, "response_format": None}
    return handler(llama=llama, **{**wanted, "grammar": grammar})


# what is asked for --------------------------------------------------------------------------------------


def chosen_tools(wanted: dict[str, Any], family: Family, parallel: bool = True) -> Tools | None:
    """The tools of a request, None if none may be called. Raises ConfigError."""
    given, choice, legacy = wanted["tools"], wanted["tool_choice"], False
    if given is None and wanted["functions"] is not None:
        given, legacy = [{"type": "function", "function": each} for each in wanted["functions"]], True
        choice = wanted["function_call"]
    tools = checked_tools(given) if given else []
    choice = "auto" if choice is None else "required" if choice == "any" else choice
    if choice == "none" or (not tools and choice == "auto"):
        return None
    if not tools:
        raise ConfigError("tool_choice asks for a tool, and tools has none")
    if choice in ("auto", "required"):
        return Tools(tools, family, choice, legacy, parallel)
    return Tools([_named(tools, choice)], family, "named", legacy, False)


def _named(tools: list[Any], choice: Any) -> Any:
    function = choice.get("function", choice) if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise ConfigError(f"tool_choice must be none, auto, required or name a function, got {json.dumps(choice)}")
    found = [tool for tool in tools if tool["function"]["name"] == name]
    if not found:
        raise ConfigError(f"tool_choice names {name!r}, which is not among tools")
    return found[0]


def response_grammar(response_format: Any) -> Any:
    """The grammar of a ``response_format``; None for free text. Raises ConfigError."""
    schema = response_schema(response_format)
    return None if schema is None else LlamaGrammar.from_string(schema_grammar(schema))


def response_schema(response_format: Any) -> Any:
    """The schema that an answer has to satisfy; None for free text."""
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return response_format.get("schema") or {"type": "object"}
    if kind != "json_schema":
        raise ConfigError("response_format.type must be text, json_object or json_schema")
    inside = response_format.get("json_schema")
    if not isinstance(inside, dict) or "schema" not in inside:
        raise ConfigError("response_format of type json_schema needs json_schema.schema")
    return inside["schema"]


def _grammar(wanted: dict[str, Any], tools: Tools | None) -> Any:
    """What a reply has to be by its format and its tools; None if it may be anything."""
    grammar, schema = wanted["grammar"], response_schema(wanted["response_format"])
    free = tools is None or (tools.choice == "auto" and not tools.strict)
    if grammar is not None and not (free and schema is None):
        raise ConfigError(f"{'response_format' if free else 'tool_choice'} and grammar both say what to write")
    if free and schema is None:
        return grammar
    rules = Rules()
    reply = None if schema is None else schema_rule(rules, schema)
    return LlamaGrammar.from_string(rules.grammar(_reply_rule(rules, tools, reply) if tools else str(reply)))


def _reply_rule(rules: Rules, tools: Tools, reply: str | None) -> str:
    """The rule for calls, and for what may be said in their place."""
    if tools.choice == "named":
        return arguments_rule(rules, tools.all[0]["function"])
    calls = calls_rule(rules, tools.family, tools.all, tools.several, loose=tools.strict)
    if tools.choice == "required":
        return calls
    return words_or_calls_rule(rules, tools.family, calls) if reply is None else rules.add(f"{reply} | {calls}")


def _stops(given: Any, of_template: Any) -> Any:
    if of_template is None:
        return given
    given = [] if given is None else [given] if isinstance(given, str) else given
    return given + (of_template if isinstance(of_template, list) else [of_template])


# the prompt ---------------------------------------------------------------------------------------------


def _source(formatter: Any) -> str:
    """The Jinja source of a formatter that has one."""
    return str(getattr(formatter, "template", ""))


def _render(formatter: Any, messages: list[Message], wanted: dict[str, Any], tools: Tools | None) -> Any:
    """A conversation as the model's template writes it, in the first of several forms that it takes."""
    source = _source(formatter)
    named = tools is not None and tools.choice == "named"
    offered = wanted["tools"] if tools is not None and not tools.legacy else None
    if not knows_tools(source) and (_has_calls(messages) or (tools is not None and not named)):
        messages, offered = told_of_tools(messages, tools.all if tools and not named else []), None
    elif tools is not None and not named:
        offered = tools.all
    if re.search(r"length\s*[!=]=\s*9", source):
        messages = with_short_ids(messages)
    choice = wanted["tool_choice"] if offered is not None else None
    given = {"tools": offered, "tool_choice": choice, "functions": None, "function_call": None, "documents": None}
    if tools is not None and tools.legacy and named:
        given |= {"functions": wanted["functions"], "function_call": wanted["function_call"]}
    return _first_that_renders(formatter, messages, given | _template_options(wanted, given))


def _template_options(wanted: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What a template is told besides, none of which is what it is told anyway."""
    options = wanted.get("chat_template_kwargs") or {}
    for name in options:
        if name in given or name in _OF_TEMPLATES:
            raise ConfigError(f"chat_template_kwargs has {name!r}, which templates are told anyway")
    return options


def _has_calls(messages: Sequence[Message]) -> bool:
    return any(message["role"] == "tool" or "tool_calls" in message for message in messages)


def _first_that_renders(formatter: Any, messages: list[Message], given: dict[str, Any]) -> Any:
    if messages[0]["role"] == "system" and not takes_system(lambda trial: formatter(messages=trial, **given)):
        messages = without_system(messages)
    forms: list[Callable[[], list[Message]]] = [lambda: messages]
    if _has_calls(messages):
        forms.append(lambda: with_text_arguments(messages))
    refused: Exception | None = None
    for form in forms:
        try:
            return formatter(messages=form(), **given)
        except CadError:
            raise
        except Exception as error:  # a template is code from the model file and may raise anything
            refused = refused or error
    if isinstance(refused, MemoryError):
        raise refused
    raise ConfigError(f"the chat template refuses this conversation: {refused}") from refused


# the answer ---------------------------------------------------------------------------------------------


def _answer(llama: Any, call: dict[str, Any], tools: Tools | None) -> Any:
    if tools is None:
        return llama_chat_format._convert_completion_to_chat(llama.create_completion(**call), stream=call["stream"])
    if tools.choice == "named":
        name, made = tools.names[0], llama.create_completion(**call)
        return _named_call(name, made, call["stream"])
    with llama.showing_marks():
        made = llama.create_completion(**call)
    if call["stream"]:
        return _chunks(llama, made, tools)
    whole = llama_chat_format._convert_text_completion_to_chat(made)
    choice = whole["choices"][0]
    choice["message"], choice["finish_reason"] = _message(choice["message"]["content"], tools, choice["finish_reason"])
    return whole


def _named_call(name: str, made: Any, stream: bool) -> Any:
    """A call of the one tool that is named; one that was cut short says so."""
    if not stream:
        answer = llama_chat_format._convert_completion_to_chat_function(name, made, stream)
        if made["choices"][0]["finish_reason"] == "length":
            answer["choices"][0]["finish_reason"] = "length"
        return answer
    return _named_chunks(name, made)


def _named_chunks(name: str, made: Iterator[Any]) -> Iterator[Any]:
    finish = None

    def watched() -> Iterator[Any]:
        nonlocal finish
        for chunk in made:
            finish = chunk["choices"][0]["finish_reason"] or finish
            yield chunk

    for chunk in llama_chat_format._convert_completion_to_chat_function(name, watched(), True):
        if chunk["choices"][0]["finish_reason"] and finish == "length":
            chunk["choices"][0]["finish_reason"] = finish
        yield chunk


def _message(text: str, tools: Tools, finish: str) -> tuple[dict[str, Any], str]:
    """What was written, as a message with its calls."""
    reply = read_calls(text, tools.unmarked)
    message: dict[str, Any] = {"role": "assistant", "content": reply.content}
    if not reply.calls:
        return message, finish
    message["content"] = reply.content or None
    calls = reply.calls if tools.several else reply.calls[:1]
    if tools.legacy:
        return message | {"function_call": _function(calls[0])}, "function_call"
    return message | {"tool_calls": [_called(each) for each in calls]}, "tool_calls"


def _function(call: Call) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments}


def _called(call: Call) -> dict[str, Any]:
    letters = "".join(secrets.choice(_ID_LETTERS) for _ in range(24))
    return {"id": f"call_{letters}", "type": "function", "function": _function(call)}


def _chunks(llama: Any, made: Iterator[Any], tools: Tools) -> Iterator[Any]:
    """A stream whose words come as they are written; what may be calls waits for the end."""
    text, shown, finish, like = "", 0, None, None
    while True:
        with llama.showing_marks():
            chunk = next(made, None)
        if chunk is None:
            break
        choice = chunk["choices"][0]
        if like is None:
            like = chunk
            yield _chunk(like, {"role": "assistant"})
        text, finish = text + choice["text"], choice["finish_reason"] or finish
        ready = begin_of_calls(text)
        if ready > shown:
            logprobs = llama_chat_format._convert_text_completion_logprobs_to_chat(choice["logprobs"])
            yield _chunk(like, {"content": text[shown:ready]}, logprobs=logprobs)
            shown = ready
    if like is not None:
        yield from _ending(like, text, shown, finish, tools)


def _ending(like: Any, text: str, shown: int, finish: str | None, tools: Tools) -> Iterator[Any]:
    message, finish = _message(text, tools, finish or "stop")
    content = message["content"] or ""
    if len(content) > shown:
        yield _chunk(like, {"content": content[shown:]})
    for i, call in enumerate(message.get("tool_calls", ())):
        begun = {**call, "index": i, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield _chunk(like, {"tool_calls": [begun]})
        rest = {"index": i, "function": {"arguments": call["function"]["arguments"]}}
        yield _chunk(like, {"tool_calls": [rest]})
    if "function_call" in message:
        yield _chunk(like, {"function_call": message["function_call"]})
    yield _chunk(like, {}, finish)


def _chunk(like: Any, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {
        "id": f"chat{like['id']}",
        "object": "chat.completion.chunk",
        "created": like["created"],
        "model": like["model"],
        "choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}],
    }
