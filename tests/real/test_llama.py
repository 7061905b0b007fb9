"""The drop-in class beside llama-cpp-python's own: the same calls give the same results, whole."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cadcpp import Llama
from cadcpp.models.demo import DemoPair
from cadcpp.schema.grammar import schema_grammar
from tests.support.oracle import Theirs, upstream, whole

from llama_cpp import LlamaGrammar, LogitsProcessorList, StoppingCriteriaList  # isort: skip

pytestmark = pytest.mark.real

N_CTX, N = 256, 6
SIZES: dict[str, Any] = {"n_ctx": N_CTX, "n_batch": 32, "n_threads": 1}
TREES: dict[str, Any] = {
    "max_tree_size": 6,
    "fallback": "none",
    "verbose": False,
}  # however little they pay
STORY = "Once upon a time, in a village by the sea,"
LIST = "Numbers: one, two, three, one, two, three, one, two,"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome", "Oslo"]}, "days": {"enum": [1, 2, 3]}},
            "required": ["city", "days"],
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {
        "born": {"type": "string", "format": "date"},  # upstream's grammar lets raw line ends into free strings
        "kind": {"enum": ["cat", "dog", "bird"]},
        "tame": {"type": "boolean"},
    },
    "required": ["born", "kind", "tame"],
}
ASK = [{"role": "user", "content": "What is the weather in Rome for 2 days?"}]


@pytest.fixture(scope="module")
def theirs(target: Path) -> Iterator[Theirs]:
    with upstream(target, **SIZES, logits_all=False) as llama:
        yield llama


@pytest.fixture(scope="module")
def mine(target: Path, demo: DemoPair) -> Iterator[Llama]:
    with Llama(str(target), draft_model_path=demo.draft, **SIZES, **TREES) as llama:
        yield llama


@pytest.fixture(scope="module")
def both(mine: Llama, theirs: Theirs) -> tuple[Llama, Theirs]:
    return mine, theirs


@pytest.fixture(scope="module")
def with_logits(target: Path, demo: DemoPair) -> Iterator[tuple[Llama, Theirs]]:
    sizes = SIZES | {"logits_all": True}
    with Llama(str(target), draft_model_path=demo.draft, **sizes, **TREES) as llama, upstream(target, **sizes) as other:
        yield llama, other


class Halve:
    """A logits processor with a memory, which halves what it has not seen in the text's length."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, ids: Any, scores: Any) -> Any:
        self.seen.append(ids.tolist())
        return np.where(np.arange(len(scores)) % (len(self.seen) + 1) == 0, scores / 2, scores)


def call(llama: Any, method: str, make: Callable[[], dict[str, Any]]) -> Any:
    llama.set_seed(7)
    return whole(getattr(llama, method)(**make()))


def complete(**options: Any) -> tuple[str, Callable[[], dict[str, Any]]]:
    return "create_completion", lambda: {"prompt": STORY, "max_tokens": N, **options}


def chat(**options: Any) -> tuple[str, Callable[[], dict[str, Any]]]:
    return "create_chat_completion", lambda: {"messages": ASK, "max_tokens": N, **options}


def grammar(text: str) -> LlamaGrammar:
    return LlamaGrammar.from_string(text, verbose=False)


WORDS = 'root ::= (" " [a-z]+)+ "."'
CASES = {
    "greedy": complete(temperature=0.0),
    "sampled": complete(seed=3),
    "no seed": complete(),
    "hot": complete(seed=4, temperature=1.5, top_k=0, top_p=1.0, min_p=0.0),
    "top-k": complete(seed=5, top_k=3),
    "top-p": complete(seed=5, top_p=0.4),
    "min-p": complete(seed=5, min_p=0.3),
    "typical-p": complete(seed=5, typical_p=0.5),
    "tfs-z": complete(seed=5, tfs_z=0.5),
    "unscaled": complete(seed=6, temperature=-1.0),
    "one token": complete(temperature=0.0, max_tokens=1),
    "many tokens": complete(temperature=0.0, max_tokens=20),
    "repeats itself": complete(prompt=LIST, temperature=0.0, max_tokens=16),
    "stop": complete(temperature=0.0, max_tokens=16, stop=","),
    "stop inside a token": complete(temperature=0.0, max_tokens=16, stop=["ea"]),
    "stops": complete(prompt=LIST, temperature=0.0, max_tokens=16, stop=["two, three, one", "ee, o"]),
    "never stops": complete(temperature=0.0, stop=["#####"]),
    "unlimited": complete(prompt=LIST, temperature=0.0, max_tokens=None, stop=["one"]),
    "echo": complete(temperature=0.0, echo=True),
    "suffix": complete(temperature=0.0, suffix=" The end."),
    "echo and suffix": complete(seed=1, suffix=" The end.", echo=True),
    "model's name": complete(temperature=0.0, model="another"),
    "repeat penalty": complete(prompt=LIST, temperature=0.0, repeat_penalty=1.3),
    "frequency penalty": complete(prompt=LIST, seed=8, frequency_penalty=1.0),
    "presence penalty": complete(prompt=LIST, temperature=0.0, presence_penalty=1.5),
    "mirostat": complete(seed=9, mirostat_mode=1, mirostat_tau=3.0),
    "mirostat 2": complete(seed=9, mirostat_mode=2, mirostat_eta=0.3),
    "logit bias": complete(temperature=0.0, logit_bias={"28": -100.0, "338": 5.0}),
    "logits processor": complete(temperature=0.0, logits_processor=LogitsProcessorList([lambda _, s: -s])),
    "processor and bias": (
        "create_completion",
        lambda: {
            "prompt": STORY,
            "max_tokens": N,
            "seed": 2,
            "logits_processor": LogitsProcessorList([Halve()]),
        },
    ),
    "stopping criteria": complete(
        temperature=0.0, stopping_criteria=StoppingCriteriaList([lambda ids, _: len(ids) > 15])
    ),
    "grammar": complete(seed=3, grammar=grammar(WORDS)),
    "grammar, greedy": complete(temperature=0.0, grammar=grammar('root ::= " " ("yes" | "no")')),
    "token ids": complete(prompt=[504, 282, 253, 1000], temperature=0.0),
    "letters of many bytes": complete(prompt="日本語の物語: むかしむかし", temperature=0.0, max_tokens=16),
    "special tokens": complete(prompt="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", temperature=0.0),
    "long prompt": complete(prompt=STORY * 7, temperature=0.0),
    "context's end": complete(prompt=[504] * 247 + [282, 253], temperature=0.0, max_tokens=200),
    "stream": complete(seed=3, stream=True),
    "stream, stop": complete(prompt=LIST, temperature=0.0, max_tokens=16, stop=["three, one"], stream=True),
    "stream of many bytes": complete(prompt="日本語の物語: むかしむかし", seed=3, max_tokens=16, stream=True),
    "stream, grammar": complete(seed=3, grammar=grammar(WORDS), stream=True),
    "stream, penalties": complete(prompt=LIST, seed=3, repeat_penalty=1.1, presence_penalty=0.5, stream=True),
    "chat": chat(temperature=0.0),
    "chat, sampled": chat(seed=3),
    "chat, stream": chat(seed=3, stream=True),
    "chat, stop": chat(temperature=0.0, max_tokens=16, stop=["."]),
    "chat to its end": chat(messages=[{"role": "user", "content": "Say yes."}], temperature=0.0, max_tokens=40),
    "chat, system": chat(messages=[{"role": "system", "content": "Be brief."}, *ASK], temperature=0.0),
    "chat, turns": chat(
        messages=[*ASK, {"role": "assistant", "content": "Sunny."}, {"role": "user", "content": "And Oslo?"}],
        temperature=0.0,
    ),
    "chat, biased": chat(seed=3, logit_bias={"28": -100.0}),
    "chat, penalties": chat(seed=3, repeat_penalty=1.2, frequency_penalty=0.4),
    "chat, mirostat": chat(seed=3, mirostat_mode=2),
    "chat, grammar": chat(seed=3, grammar=grammar(WORDS)),
    "chat, schema's grammar": chat(seed=3, grammar=grammar(schema_grammar(SCHEMA)), max_tokens=16),
    "chat, schema's grammar, stream": chat(seed=4, grammar=grammar(schema_grammar(SCHEMA)), max_tokens=16, stream=True),
}
LOGPROBS = {
    "logprobs": complete(temperature=0.0, logprobs=2),
    "logprobs, sampled": complete(seed=3, logprobs=4),
    "logprobs, stop": complete(prompt=LIST, temperature=0.0, max_tokens=20, stop=["three"], logprobs=1),
    "logprobs, long prompt": complete(prompt=STORY * 4, temperature=0.0, max_tokens=4, logprobs=1),
    "logprobs, stream": complete(seed=3, logprobs=2, stream=True),
    "chat, logprobs": chat(seed=3, logprobs=True, top_logprobs=2),
    "chat, logprobs, stream": chat(seed=3, logprobs=True, top_logprobs=2, stream=True),
}


@pytest.mark.parametrize("name", CASES)
def test_the_result_is_upstreams(both: tuple[Llama, Theirs], name: str) -> None:
    mine, theirs = (call(llama, *CASES[name]) for llama in both)
    assert mine == theirs


@pytest.mark.parametrize("name", LOGPROBS)
def test_logprobs_are_upstreams(with_logits: tuple[Llama, Theirs], name: str) -> None:
    mine, theirs = (call(llama, *LOGPROBS[name]) for llama in with_logits)
    assert mine == theirs


@pytest.mark.parametrize("chat_format", ["chatml", "llama-2", "chatml-function-calling", "mistral-instruct"])
def test_chat_formats(both: tuple[Llama, Theirs], chat_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for llama in both:
        monkeypatch.setattr(llama, "chat_format", chat_format)
    tools = {"tools": [WEATHER], "tool_choice": "auto"} if "function" in chat_format else {}
    mine, theirs = (call(llama, *chat(seed=3, max_tokens=16, **tools)) for llama in both)
    assert mine == theirs


def test_trees_were_drafted_and_taken(mine: Llama) -> None:
    """Else the comparisons above would say nothing of speculation."""
    mine.create_completion(LIST, temperature=0.0, max_tokens=16)
    assert mine.last_stats.accepted > 6 and mine.last_stats.passes < 12
    assert mine.last_stats.emitted == 16


def test_a_wrong_draw_would_show(both: tuple[Llama, Theirs]) -> None:
    mine, theirs = (
        whole(llama.create_completion(STORY, max_tokens=20, seed=seed))
        for llama, seed in zip(both, (3, 4), strict=True)
    )
    assert mine != theirs


def test_a_schema_is_kept_by_its_grammar(mine: Llama) -> None:
    """Upstream's own grammars say less than a schema, and take any JSON in the place of what they cannot say."""
    by_schema = chat(seed=3, response_format={"type": "json_object", "schema": SCHEMA}, max_tokens=16)
    assert call(mine, *by_schema) == call(mine, *CASES["chat, schema's grammar"])


# JSON -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(target: Path) -> Iterator[Llama]:
    with Llama(str(target), speculative="off", verbose=False, **SIZES) as llama:
        yield llama


SEEDS = [pytest.param(seed, marks=[pytest.mark.slow] if seed else []) for seed in range(50)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_schema_gives_valid_json(mine: Llama, plain: Llama, seed: int) -> None:
    options = {"response_format": {"type": "json_object", "schema": SCHEMA}, "seed": seed, "temperature": 1.0}
    messages = [{"role": "user", "content": "Describe a pet."}]
    results = [whole(llama.create_chat_completion(messages, max_tokens=80, **options)) for llama in (mine, plain)]
    pet = json.loads(results[0]["choices"][0]["message"]["content"])
    assert pet["kind"] in ("cat", "dog", "bird") and isinstance(pet["tame"], bool) and len(pet["born"]) == 10
    assert results[0] == results[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tool_is_called_with_valid_json(mine: Llama, plain: Llama, seed: int) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    options = {"tools": [WEATHER], "tool_choice": choice, "seed": seed, "temperature": 1.0, "max_tokens": 80}
    results = [whole(llama.create_chat_completion(ASK, **options)) for llama in (mine, plain)]
    called = results[0]["choices"][0]["message"]["tool_calls"][0]["function"]
    arguments = json.loads(called["arguments"])
    assert (called["name"], set(arguments)) == ("get_weather", {"city", "days"})
    assert results[0] == results[1]
