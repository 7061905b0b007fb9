"""OpenAI's completions: texts after prompts."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from cadcpp.errors import ConfigError
from cadcpp.llama.infill import infill_prompt
from cadcpp.server.fields import Fields
from cadcpp.server.sampling import sampling, seeds
from cadcpp.server.served import Served

_MOST_CHOICES = 128
Prompt = str | list[int]


class Completion:
    """One request for texts: for each prompt ``n`` of them."""

    def __init__(self, served: Served, fields: Fields) -> None:
        served.check_name(fields)
        self._served = served
        self.stream = fields.flag("stream")
        for name in ("response_format", "json_schema", "tools"):
            if name in fields:
                raise fields.bad(name, "is for chats")
        self._usage = include_usage(fields, self.stream)
        self._prompts = with_suffix(fields, served, prompts(fields, served))
        self._n = choices(fields)
        self._echo = fields.flag("echo")
        logprobs, limit = fields.integer("logprobs", 0), fields.integer("max_tokens", 0)
        if self._echo and fields.text("suffix"):
            raise fields.bad("echo", "and suffix do not go together here")
        if self.stream and self._echo and logprobs is not None:
            raise fields.bad("echo", "a stream cannot have logprobs of its prompt")
        self._max_tokens = 16 if limit is None else limit
        self._call = sampling(fields, served.llama) | {"logprobs": logprobs}
        check_logprobs(served, logprobs is not None)

    def answer(self) -> dict[str, Any]:
        """All texts, and what they took."""
        texts = [self._text(prompt, i) for prompt in self._prompts for i in range(self._n)]
        found = [choice | {"index": i} for i, (choice, _) in enumerate(texts)]
        usage = joined_usage([usage for _, usage in texts], self._n)
        return self._head() | {"choices": found, "usage": usage}

    def chunks(self) -> Iterator[Any]:
        """Texts one after the other, piece by piece."""
        head, usages = self._head(), []
        more = {"usage": None} if self._usage else {}
        jobs = [(prompt, i) for prompt in self._prompts for i in range(self._n)]
        for index, (prompt, i) in enumerate(jobs):
            if self._echo:
                yield head | {"choices": [_piece(self._shown(prompt), index)]} | more
            for chunk in self._pieces(prompt, i):
                yield head | {"choices": [chunk["choices"][0] | {"index": index}]} | more
            usages.append(self._served.llama.last_usage if self._max_tokens else self._read_only(prompt))
        if self._usage:
            yield head | {"choices": [], "usage": joined_usage(usages, self._n)}

    def _head(self) -> dict[str, Any]:
        now = int(time.time())
        return {"id": f"cmpl-{uuid.uuid4()}", "object": "text_completion", "created": now, "model": self._served.name}

    def _text(self, prompt: Prompt, i: int) -> tuple[dict[str, Any], dict[str, int]]:
        scored = self._echo and self._call["logprobs"] is not None
        if not self._max_tokens and not scored:
            usage = self._read_only(prompt)
            return _piece(self._shown(prompt) if self._echo else "", 0, "length"), usage
        call = seeds(self._call, i) | {"max_tokens": self._max_tokens or 1, "echo": self._echo}
        made = self._served.count(self._served.llama.create_completion(prompt, **call))
        choice, usage = made["choices"][0], made["usage"]
        if not self._max_tokens:
            choice, usage = self._without_last(choice, prompt, usage["completion_tokens"]), self._read_only(prompt)
        return choice, usage

    def _pieces(self, prompt: Prompt, i: int) -> Iterator[Any]:
        if not self._max_tokens:
            yield {"choices": [_piece("", 0, "length")]}
            return
        call = seeds(self._call, i) | {"max_tokens": self._max_tokens, "stream": True}
        yield from self._served.count(self._served.llama.create_completion(prompt, **call))

    def _shown(self, prompt: Prompt) -> str:
        return prompt if isinstance(prompt, str) else self._served.llama.spelled(prompt)

    def _read_only(self, prompt: Prompt) -> dict[str, int]:
        n = len(prompt) if not isinstance(prompt, str) else len(self._served.llama.tokenize(prompt.encode()))
        return {"prompt_tokens": n, "completion_tokens": 0, "total_tokens": n}

    def _without_last(self, choice: dict[str, Any], prompt: Prompt, n: int) -> dict[str, Any]:
        """Of a prompt that was only scored: without the token that scoring it took."""
        logprobs = choice["logprobs"]
        kept = {name: values[: len(values) - n] for name, values in logprobs.items()}
        return choice | {"text": self._shown(prompt), "logprobs": kept, "finish_reason": "length"}


def _piece(text: str, index: int, finish: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def prompts(fields: Fields, served: Served) -> list[Prompt]:
    """A text or token ids, or a list of either."""
    given = fields.get("prompt")
    if given is None or given == []:
        given = ""
    found = given if isinstance(given, list) and not _is_ids(given) else [given]
    for prompt in found:
        if not isinstance(prompt, str) and not _is_ids(prompt):
            raise fields.bad("prompt", "must be a string or token ids, or a list of them")
        if isinstance(prompt, list) and not all(0 <= token < served.llama.n_vocab() for token in prompt):
            raise fields.bad("prompt", f"has ids of no token: they go from 0 to {served.llama.n_vocab() - 1}")
    return found


def with_suffix(fields: Fields, served: Served, given: list[Prompt]) -> list[Prompt]:
    """Prompts after which comes what stands between them and ``suffix``, if there is one."""
    suffix = fields.text("suffix")
    if not suffix:
        return given
    if not all(isinstance(prompt, str) for prompt in given):
        raise fields.bad("suffix", "stands behind texts, not behind token ids")
    try:
        return [infill_prompt(served.llama, str(prompt), suffix) for prompt in given]
    except ConfigError as error:
        raise fields.bad("suffix", str(error)) from None


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def choices(fields: Fields) -> int:
    """How many texts are asked for. Of ``best_of`` more nobody could say which are the best."""
    n = fields.integer("n", 1, _MOST_CHOICES)
    best_of = fields.integer("best_of", 1, _MOST_CHOICES)
    n = 1 if n is None else n
    if best_of is not None and best_of != n:
        raise fields.bad("best_of", f"must be the same as n, which is {n}: texts are not ranked here")
    return n


def include_usage(fields: Fields, stream: bool) -> bool:
    """Whether a stream is to end with its usage."""
    if "stream_options" in fields and not stream:
        raise fields.bad("stream_options", "is for streams: set stream to true")
    return fields.object("stream_options").flag("include_usage")


def check_logprobs(served: Served, wanted: bool) -> None:
    if wanted and not served.llama._logits_all:
        raise Fields({}).bad("logprobs", "this server gives no logprobs: start it with --logprobs")


def joined_usage(usages: list[dict[str, int]], n: int) -> dict[str, int]:
    """Of several texts; a prompt with ``n`` of them counts once."""
    n_prompt = sum(usage["prompt_tokens"] for usage in usages[::n])
    n_written = sum(usage["completion_tokens"] for usage in usages)
    return {"prompt_tokens": n_prompt, "completion_tokens": n_written, "total_tokens": n_prompt + n_written}
