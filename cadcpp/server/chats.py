"""OpenAI's chat completions."""

import time
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from cadcpp.server.completions import check_logprobs, choices, include_usage, joined_usage
from cadcpp.server.fields import Fields
from cadcpp.server.rounds import Rounds
from cadcpp.server.sampling import sampling, seeds
from cadcpp.server.served import Served

_UNSERVED = {
    "audio": "this model writes no speech",
    "web_search_options": "this server searches nothing",
    "chat_template": "the model's own is used",
    "documents": "write them into a message",
}
_AS_IT_IS = {"add_generation_prompt": True, "continue_final_message": False, "echo": False}  # vLLM's


class Chat:
    """One request for an answer, or for ``n`` of them."""

    def __init__(self, served: Served, fields: Fields) -> None:
        served.check_name(fields)
        self._served = served
        self.stream = fields.flag("stream")
        self._usage = include_usage(fields, self.stream)
        self._n = choices(fields)
        self._rounds = fields.flag("rounds")  # not OpenAI's: the page's
        for name, why in _UNSERVED.items():
            if name in fields:
                raise fields.bad(name, why)
        for name, value in _AS_IT_IS.items():
            if fields.flag(name, value) != value:
                raise fields.bad(name, f"is {str(value).lower()} here")
        if fields.get("modalities") not in (None, ["text"]):
            raise fields.bad("modalities", 'this model writes text only: ["text"]')
        self._call = sampling(fields, served.llama) | _wanted(fields)
        check_logprobs(served, self._call["logprobs"])

    def answer(self) -> dict[str, Any]:
        """All answers, and what they took."""
        made = [self._served.count(self._made(i, stream=False)) for i in range(self._n)]
        found = [each["choices"][0] | {"index": i} for i, each in enumerate(made)]
        usage = joined_usage([each["usage"] for each in made], self._n)
        return self._head("chat.completion") | {"choices": found, "usage": usage}

    def chunks(self) -> Iterator[Any]:
        """Answers one after the other, piece by piece."""
        head, usages = self._head("chat.completion.chunk"), []
        more = {"usage": None} if self._usage else {}
        for i in range(self._n):
            called = set[int]()
            for chunk, told in self._watched(self._served.count(self._made(i, stream=True))):
                choice = chunk["choices"][0] | {"index": i}
                yield head | {"choices": [choice | {"delta": _tidy(choice["delta"], called)}]} | more | told
            usages.append(self._served.llama.last_usage)
        if self._usage:
            yield head | {"choices": [], "usage": joined_usage(usages, self._n)}

    def _watched(self, chunks: Iterator[Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Chunks, each with the rounds that ended before it, where they are asked for."""
        rounds = Rounds(self._served.llama)
        with rounds.watched() if self._rounds else nullcontext():
            for chunk in chunks:
                told = rounds.take()
                yield chunk, {"rounds": told} if told else {}

    def _made(self, i: int, stream: bool) -> Any:
        return self._served.llama.create_chat_completion(**seeds(self._call, i), stream=stream)

    def _head(self, kind: str) -> dict[str, Any]:
        now = int(time.time())
        return {"id": f"chatcmpl-{uuid.uuid4()}", "object": kind, "created": now, "model": self._served.name}


def _wanted(fields: Fields) -> dict[str, Any]:
    """What chats have and completions do not."""
    limit = fields.integer("max_completion_tokens", 1)
    if limit is None:
        limit = fields.renamed({"n_predict": "max_tokens"}).integer("max_tokens", -1)
        if limit == 0:
            raise fields.bad("max_tokens", "must be at least 1, got 0")
    logprobs, top = fields.flag("logprobs"), fields.integer("top_logprobs", 0, 20)
    if top is not None and not logprobs:
        raise fields.bad("top_logprobs", "is for logprobs: set logprobs to true")
    tools = fields.get("tools")
    for name in ("tools", "functions"):
        if not isinstance(fields.get(name), list | None):
            raise fields.bad(name, "must be a list")
    if not isinstance(fields.get("tool_choice"), str | dict | None):
        raise fields.bad("tool_choice", "must be none, auto, required or an object that names a function")
    parallel = fields.flag("parallel_tool_calls", True)
    return {
        "messages": fields.get("messages"),
        "max_tokens": None if limit == -1 else limit,
        "logprobs": logprobs,
        "top_logprobs": top,
        "tools": tools,
        "tool_choice": fields.get("tool_choice"),
        "functions": fields.get("functions"),
        "function_call": fields.get("function_call"),
        "response_format": _response_format(fields),
        "chat_template_kwargs": _template_options(fields),
        "parallel_tool_calls": parallel,
    }


def _response_format(fields: Fields) -> Any:
    """What an answer has to be; llama-server takes a schema by itself as well."""
    schema, given = fields.get("json_schema"), fields.get("response_format")
    if schema is None:
        return given
    if given is not None:
        raise fields.bad("json_schema", "and response_format both say what to write: leave out one")
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def _template_options(fields: Fields) -> dict[str, Any]:
    """What a template may be told besides."""
    given = fields.get("chat_template_kwargs")
    if not isinstance(given, dict | None):
        raise fields.bad("chat_template_kwargs", "must be an object")
    effort = fields.text("reasoning_effort")
    return ({} if effort is None else {"reasoning_effort": effort}) | (given or {})


def _tidy(delta: dict[str, Any], called: set[int]) -> dict[str, Any]:
    """A delta without nulls, whose calls say who they are once: clients put the pieces together."""
    found = {name: value for name, value in delta.items() if value is not None}
    if "tool_calls" in found:
        found.pop("function_call", None)
        found["tool_calls"] = [_call(call, called) for call in found["tool_calls"]]
    return found


def _call(call: dict[str, Any], called: set[int]) -> dict[str, Any]:
    if call["index"] not in called:
        called.add(call["index"])
        return call
    return {"index": call["index"], "function": {"arguments": call["function"]["arguments"]}}
