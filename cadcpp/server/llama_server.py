"""What clients of llama.cpp's own server ask for."""

import time
from collections.abc import Iterator
from typing import Any

from cadcpp._version import __version__
from cadcpp.errors import ConfigError
from cadcpp.llama.chat import response_grammar
from cadcpp.llama.infill import infill_prompt
from cadcpp.llama.logprobs import token_probabilities
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
    return {"tokens": [{"id": token, "piece": _piece(llama.detokenize([token], special=True))} for token in ids]}


def _piece(spelled: bytes) -> str | list[int]:
    """A token's text, or the bytes of one that is a part of a letter."""
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return list(spelled)


def detokenize(served: Served, fields: Fields) -> dict[str, Any]:
    return {"content": served.llama.spelled(token_ids(fields, "tokens"))}


def token_ids(fields: Fields, name: str) -> list[int]:
    given = fields.get(name)
    if not isinstance(given, list) or not all(type(token) is int for token in given):
        raise fields.bad(name, "must be a list of token ids")
    return given


def _files(fields: Fields) -> list[tuple[str, str]]:
    """Names and texts of ``input_extra``."""
    given = fields.get("input_extra") or []
    if not isinstance(given, list):
        raise fields.bad("input_extra", "must be a list of objects with a text and a filename")
    files = [Fields(each, f"input_extra[{i}]") for i, each in enumerate(given)]
    return [(each.text("filename") or "file", each.text("text") or "") for each in files]


class NativeCompletion:
    """One request to ``/completion``."""

    def __init__(self, served: Served, fields: Fields) -> None:
        self._served = served
        self.stream = fields.flag("stream")
        self._prompt = self._one_prompt(fields)
        self._begun = time.perf_counter()
        limit = fields.renamed({"max_tokens": "n_predict"}).integer("n_predict", -2)
        limit = -1 if limit is None else limit
        self._limit = limit
        if fields.get("image_data"):
            raise fields.bad("image_data", "this model reads text only")
        self._n_probs = fields.integer("n_probs", 0, served.llama.n_vocab() - 1) or 0
        if self._n_probs and not served.llama._logits_all:
            raise fields.bad("n_probs", "this server has no probabilities: start it with --logprobs")
        self._tokens = fields.flag("return_tokens")
        self._call = sampling(fields, served.llama, _DEFAULTS)
        self._schema = fields.get("json_schema")
        if self._schema is not None and "grammar" in self._call:
            raise fields.bad("grammar", "and json_schema both say what to write: leave out one")

    @classmethod
    def infill(cls, served: Served, fields: Fields) -> "NativeCompletion":
        """One request to ``/infill``: what stands between two texts."""
        before, after = fields.text("input_prefix"), fields.text("input_suffix")
        if before is None or after is None:
            raise fields.bad("input_prefix" if before is None else "input_suffix", "is missing: it must be a text")
        files = _files(fields)
        try:
            ids = infill_prompt(served.llama, before + (fields.text("prompt") or ""), after, files)
        except ConfigError as error:
            raise fields.unsupported("input_suffix", str(error)) from None
        return cls(served, fields.with_(prompt=ids))

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
        return self._end(content, finish) | self._told(0)

    def chunks(self) -> Iterator[Any]:
        """The text piece by piece."""
        finish, n = "length", 0
        for piece, ended in self._pieces():
            finish = ended or finish
            if piece:
                head = {"index": 0, "content": piece, "stop": False, "id_slot": 0}
                yield head | {"tokens": []} | self._told(n)
                n = len(self._served.llama.last_tokens)
        yield self._end("", finish) | self._told(n)

    def _told(self, n: int) -> dict[str, Any]:
        """What is asked for of the tokens written, without the first ``n``."""
        llama = self._served.llama
        ids = llama.last_tokens[n:] if self._limit else []
        found: dict[str, Any] = {"tokens": ids} if self._tokens else {}
        if self._n_probs:
            found["completion_probabilities"] = token_probabilities(llama, ids, n, self._n_probs)
        return found

    def _pieces(self) -> Iterator[tuple[str, str | None]]:
        if self._limit == 0:
            return
        call = self._call | {"max_tokens": max(self._limit, 0) or None, "stream": True}
        if self._schema is not None:  # not before its turn: it may take long
            call["grammar"] = response_grammar({"type": "json_schema", "json_schema": {"schema": self._schema}})
        for chunk in self._served.count(self._served.llama.create_completion(self._prompt, **call)):
            yield chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"]

    def _end(self, content: str, finish: str) -> dict[str, Any]:
        llama, seconds = self._served.llama, time.perf_counter() - self._begun
        usage = llama.last_usage if self._limit else {"completion_tokens": 0, "prompt_tokens": 0}
        n = usage["completion_tokens"]
        ended = finish == "stop" and llama.ended
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
