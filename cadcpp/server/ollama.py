"""What clients of ollama ask for."""

import json
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from cadcpp.llama.chat import response_grammar
from cadcpp.server.completions import with_suffix
from cadcpp.server.fields import Fields
from cadcpp.server.sampling import sampling
from cadcpp.server.served import Served

VERSION = "0.6.4"  # of the API that is spoken here
_UNSERVED = {
    "think": "this server does not take thoughts apart from answers",
    "images": "this model reads text only",
    "template": "the model's own is used: write the prompt out, with raw",
    "context": "this server keeps no conversations: use /api/chat",
    "logprobs": "these are given by /v1/completions and /completion",
    "top_logprobs": "these are given by /v1/completions and /completion",
}
_DEFAULTS = {"repeat_penalty": 1.1, "top_p": 0.9, "min_p": 0.0}


def tags(served: Served) -> dict[str, Any]:
    return {"models": [_model(served)]}


def running(served: Served) -> dict[str, Any]:
    return {"models": [_model(served) | {"expires_at": "0001-01-01T00:00:00Z", "size_vram": 0}]}


def _model(served: Served) -> dict[str, Any]:
    header = {"parent_model": "", "format": "gguf", "family": _family(served), "families": [_family(served)]}
    return {
        "name": served.name,
        "model": served.name,
        "modified_at": _stamp(served.created),
        "size": served.llama.model_bytes,
        "digest": "",
        "details": header | {"parameter_size": "", "quantization_level": ""},
    }


def _family(served: Served) -> str:
    return str(served.llama.metadata.get("general.architecture", ""))


def show(served: Served, fields: Fields) -> dict[str, Any]:
    _check_name(served, fields)
    family = _family(served)
    return {
        "modelfile": "",
        "parameters": "",
        "template": served.llama.metadata.get("tokenizer.chat_template", ""),
        "details": _model(served)["details"],
        "model_info": {"general.architecture": family, f"{family}.context_length": served.llama.n_ctx()},
        "capabilities": ["completion", "tools"],
    }


def _check_name(served: Served, fields: Fields) -> None:
    served.check_name(Fields({"model": fields.get("model") or fields.get("name")}))


def _stamp(seconds: float | None = None) -> str:
    now = datetime.now(timezone.utc) if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class _Request:
    """What ``/api/generate`` and ``/api/chat`` have in common: lines of JSON, unless ``stream`` is false."""

    def __init__(self, served: Served, fields: Fields) -> None:
        _check_name(served, fields)
        self._served, self._begun = served, time.perf_counter_ns()
        self.stream = fields.flag("stream", True)
        options = fields.object("options")
        self._call = sampling(options, served.llama, _DEFAULTS)
        for name, why in _UNSERVED.items():
            if fields.get(name):
                raise fields.bad(name, why)
        limit = options.integer("num_predict", -2)
        self._call["max_tokens"] = None if limit is None or limit < 0 else limit
        if limit == 0:
            raise options.bad("num_predict", "must be at least 1, or -1 for no limit")
        self._told = {"enable_thinking": False} if fields.get("think") is False else {}
        self._format = response_format(fields)
        if self._format is not None and "grammar" in self._call:
            raise fields.bad("format", "and options.grammar both say what to write: leave out one")

    def _head(self) -> dict[str, Any]:
        return {"model": self._served.name, "created_at": _stamp()}

    def _done(self, reason: str) -> dict[str, Any]:
        usage, stats = self._served.llama.last_usage, self._served.llama.last_stats
        total = time.perf_counter_ns() - self._begun
        spent = int(1e9 * (stats.draft_seconds + stats.verify_seconds))
        return {
            "done": True,
            "done_reason": reason,
            "total_duration": total,
            "load_duration": 0,
            "prompt_eval_count": usage["prompt_tokens"],
            "prompt_eval_duration": max(total - spent, 0),
            "eval_count": usage["completion_tokens"],
            "eval_duration": min(spent, total),
        }


def response_format(fields: Fields) -> dict[str, Any] | None:
    """``format``: nothing, "json" or a schema."""
    given = fields.get("format")
    if given is None or given == "":
        return None
    if given == "json":
        return {"type": "json_object"}
    if isinstance(given, dict):
        return {"type": "json_object", "schema": given}
    raise fields.bad("format", 'must be "json" or a JSON schema')


class Generate(_Request):
    """One request to ``/api/generate``: a text, by the chat template unless ``raw``."""

    def __init__(self, served: Served, fields: Fields) -> None:
        super().__init__(served, fields)
        self._prompt, self._raw = fields.text("prompt") or "", fields.flag("raw")
        system = fields.text("system")
        (self._infill,) = with_suffix(fields, served, [self._prompt])
        if self._raw and system:
            raise fields.bad("system", "is not used where raw is set: write it into the prompt")
        asked = {"role": "user", "content": self._prompt}
        self._messages = [{"role": "system", "content": system}, asked] if system else [asked]

    def answer(self) -> dict[str, Any]:
        text, last = "", {}
        for last in self.chunks():
            text += last["response"]
        return last | {"response": text}

    def chunks(self) -> Iterator[Any]:
        if not self._prompt:
            yield self._head() | {"response": "", "done": True, "done_reason": "load"}
            return
        finish = "stop"
        for text, ended in self._pieces():
            finish = ended or finish
            if text:
                yield self._head() | {"response": text, "done": False}
        yield self._head() | {"response": ""} | self._done(finish)

    def _pieces(self) -> Iterator[tuple[str, str | None]]:
        llama, count = self._served.llama, self._served.count
        if self._raw or self._infill != self._prompt:
            call = dict(self._call)
            if self._format is not None:
                call["grammar"] = response_grammar(self._format)
            for chunk in count(llama.create_completion(self._infill, stream=True, **call)):
                yield chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"]
            return
        call = self._call | {"response_format": self._format, "chat_template_kwargs": self._told}
        for chunk in count(llama.create_chat_completion(self._messages, stream=True, **call)):
            choice = chunk["choices"][0]
            yield choice["delta"].get("content") or "", choice["finish_reason"]


class OllamaChat(_Request):
    """One request to ``/api/chat``."""

    def __init__(self, served: Served, fields: Fields) -> None:
        super().__init__(served, fields)
        self._messages = [] if fields.get("messages") is None else fields.get("messages")
        if not isinstance(self._messages, list):
            raise fields.bad("messages", "must be a list")
        if any(isinstance(message, dict) and message.get("images") for message in self._messages):
            raise fields.bad("messages", "have images, and this model reads text only")
        self._tools = fields.get("tools") or None

    def answer(self) -> dict[str, Any]:
        text, calls, last = "", list[Any](), dict[str, Any]()
        for last in self.chunks():
            text += last["message"]["content"]
            calls += last["message"].get("tool_calls", ())
        message = {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})
        return last | {"message": message}

    def chunks(self) -> Iterator[Any]:
        if not self._messages:
            yield self._head() | {"message": _said(""), "done": True, "done_reason": "load"}
            return
        call = self._call | {"response_format": self._format, "tools": self._tools}
        call["chat_template_kwargs"] = self._told
        finish, open_calls = "stop", dict[int, dict[str, str]]()
        for chunk in self._served.count(self._served.llama.create_chat_completion(self._messages, stream=True, **call)):
            choice = chunk["choices"][0]
            finish = choice["finish_reason"] or finish
            for part in choice["delta"].get("tool_calls") or ():
                so_far = open_calls.setdefault(part["index"], {"name": "", "arguments": ""})
                so_far["name"] = part["function"].get("name") or so_far["name"]
                so_far["arguments"] += part["function"]["arguments"]
            if choice["delta"].get("content"):
                yield self._head() | {"message": _said(choice["delta"]["content"]), "done": False}
        if open_calls:
            yield self._head() | {"message": _said("") | {"tool_calls": _calls(open_calls)}, "done": False}
        yield self._head() | {"message": _said("")} | self._done("stop" if finish == "tool_calls" else finish)


def _said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _calls(found: dict[int, dict[str, str]]) -> list[dict[str, Any]]:
    return [{"function": {"name": each["name"], "arguments": json.loads(each["arguments"])}} for each in found.values()]
