"""What clients of llama.cpp's own server ask for."""

import time
from collections.abc import Iterator
from typing import Any

from cadcpp._version import __version__
from cadcpp.errors import ConfigError
from cadcpp.llama.chat import response_grammar
from cadcpp.server.completions import Prompt
from cadcpp.server.fields import Fields
from cadcpp.server.sampling import sampling
from cadcpp.server.served import Served

_DEFAULTS = {"repeat_penalty": 1.0}


def props(served: Served) -> dict[str, Any]:
    """What is served, without where it lies."""
    llama = served.llama
    settings = {"id": 0, "n_ctx": llama.n_ctx(), "speculative": llama.speculates, "is_processing": False}
    return {
        "default_generation_settings": settings,
        "total_slots": 1,
        "model_path": served.name,
        "model_alias": served.name,
        "chat_template": llama.metadata.get("tokenizer.chat_template", ""),
        "modalities": {"vision": False, "audio": False},
        "bos_token": llama.spelled([llama.token_bos()]) if llama.token_bos() >= 0 else "",
        "eos_token": llama.spelled([llama.token_eos()]) if llama.token_eos() >= 0 else "",
        "build_info": f"cadcpp {__version__}",
    }


def slots(served: Served) -> list[dict[str, Any]]:
    """The one text that is written at a time; nothing of its words."""
    stats, metrics = served.llama.last_stats, served.metrics
    return [
        {
            "id": 0,
            "n_ctx": served.llama.n_ctx(),
            "speculative": served.llama.speculates,
            "is_processing": metrics.n_working > 0,
            "n_waiting": metrics.n_waiting,
            "n_decoded": stats.emitted,
            "tokens_per_pass": stats.tokens_per_pass,
        }
    ]


def tokenize(served: Served, fields: Fields) -> dict[str, Any]:
    llama = served.llama
    content = fields.text("content") or ""
    special = fields.flag("parse_special", True)
    ids = llama.tokenize(content.encode(), add_bos=fields.flag("add_special"), special=special)
    if not fields.flag("with_pieces"):
        return {"tokens": ids}
    return {"tokens": [{"id": token, "piece": llama.spelled([token])} for token in ids]}


def detokenize(served: Served, fields: Fields) -> dict[str, Any]:
    return {"content": served.llama.spelled(token_ids(fields, "tokens"))}


def token_ids(fields: Fields, name: str) -> list[int]:
    given = fields.get(name)
    if not isinstance(given, list) or not all(type(token) is int for token in given):
        raise fields.bad(name, "must be a list of token ids")
    return given


class NativeCompletion:
    """One request to ``/completion``."""

    def __init__(self, served: Served, fields: Fields) -> None:
        self._served = served
        self.stream = fields.flag("stream")
        self._prompt = self._one_prompt(fields)
        self._begun = time.perf_counter()
        limit = fields.integer("n_predict", -2)
        limit = -1 if limit is None else limit
        self._limit = limit
        for name in ("n_probs", "image_data"):
            if fields.get(name):
                raise fields.bad(name, "is not served here")
        self._call = sampling(fields, served.llama, _DEFAULTS)
        if (schema := fields.get("json_schema")) is not None:
            if "grammar" in self._call:
                raise fields.bad("grammar", "and json_schema both say what to write: leave out one")
            self._call["grammar"] = response_grammar({"type": "json_schema", "json_schema": {"schema": schema}})

    def _one_prompt(self, fields: Fields) -> Prompt:
        given = fields.get("prompt")
        if isinstance(given, list) and given:
            parts = [self._part(part, fields) for part in given]
            return [token for part in parts for token in part]
        if not isinstance(given, str) or not given:
            raise fields.bad("prompt", "must be a text, or a list of texts and token ids")
        return given

    def _part(self, part: Any, fields: Fields) -> list[int]:
        llama = self._served.llama
        if isinstance(part, str):
            return list(llama.tokenize(part.encode(), add_bos=False, special=True))
        if type(part) is not int or not 0 <= part < llama.n_vocab():
            raise fields.bad("prompt", f"has {part!r}, which is neither a text nor a token")
        return [part]

    def answer(self) -> dict[str, Any]:
        """The text, with what it took."""
        content, finish = "", "length"
        for piece, ended in self._pieces():
            content, finish = content + piece, ended or finish
        return self._end(content, finish)

    def chunks(self) -> Iterator[Any]:
        """The text piece by piece."""
        finish = "length"
        for piece, ended in self._pieces():
            finish = ended or finish
            if piece:
                yield {"index": 0, "content": piece, "tokens": [], "stop": False, "id_slot": 0}
        yield self._end("", finish)

    def _pieces(self) -> Iterator[tuple[str, str | None]]:
        if self._limit == 0:
            return
        call = self._call | {"max_tokens": max(self._limit, 0) or None, "stream": True}
        for chunk in self._served.count(self._served.llama.create_completion(self._prompt, **call)):
            yield chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"]

    def _end(self, content: str, finish: str) -> dict[str, Any]:
        llama, seconds = self._served.llama, time.perf_counter() - self._begun
        usage = llama.last_usage if self._limit else {"completion_tokens": 0, "prompt_tokens": 0}
        n = usage["completion_tokens"]
        ended = bool(llama._drawn) and finish == "stop" and llama.ended
        return {
            "index": 0,
            "content": content,
            "tokens": [],
            "id_slot": 0,
            "stop": True,
            "model": self._served.name,
            "tokens_predicted": n,
            "tokens_evaluated": usage["prompt_tokens"],
            "tokens_cached": usage["prompt_tokens"] + n,
            "truncated": False,
            "stop_type": "limit" if finish == "length" else "eos" if ended else "word",
            "stopping_word": "",
            "generation_settings": {"n_ctx": llama.n_ctx(), "seed": self._call["seed"], "stop": self._call["stop"]},
            "timings": {
                "prompt_n": usage["prompt_tokens"],
                "predicted_n": n,
                "predicted_ms": 1000 * seconds,
                "predicted_per_second": n / seconds if seconds else 0.0,
                "draft_n": llama.last_stats.drafted,
                "draft_n_accepted": llama.last_stats.accepted,
            },
        }


def plan(served: Served) -> dict[str, Any]:
    """Where the memory goes, and what the last text took: what the page shows."""
    stats, found = served.llama.last_stats, served.llama.plan
    memory = None if found is None else {
        "peak": found.peak, "ram": found.ram, "read_bytes": found.read_bytes, "streams": found.streams,
    }  # fmt: skip
    return {
        "model": served.name,
        "n_ctx": served.llama.n_ctx(),
        "speculates": served.llama.speculates,
        "plan": memory,
        "last": stats.to_dict() | {"emitted": stats.emitted},
    }


def not_embedded() -> ConfigError:
    return ConfigError("this server makes no embeddings: its model writes texts")
