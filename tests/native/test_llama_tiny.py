"""The drop-in class on tiny models: what lies below its completions, and what it does where it cannot speculate."""

import asyncio
import inspect
import pickle
import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cadcpp
from cadcpp.errors import ConfigError, ContextFull, ModelError, PairError
from cadcpp.gguf.header import read_header
from cadcpp.llama.async_llama import AsyncLlama
from cadcpp.llama.llama import Llama
from cadcpp.llama.options import UPSTREAM
from cadcpp.native.context import Stopped
from cadcpp.residency.memory_plan import PYTHON, make_plan
from cadcpp.system.memory_limits import resident_bytes
from tests.support.oracle import ALIKE, Theirs, api, upstream, whole

from llama_cpp import LlamaGrammar, LlamaRAMCache, LogitsProcessorList  # isort: skip
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding  # isort: skip

SIZES: dict[str, Any] = {"n_ctx": 256, "n_batch": 32, "n_threads": 1}
TREES: dict[str, Any] = {"max_tree_size": 8, "fallback": "none", "verbose": False}
PROMPT = list(range(20, 70))
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


LARGE = {"type_name": "Q8_0", "n_layer": 8, "n_embd": 128, "n_head": 4, "n_head_kv": 2, "n_ff": 8192}


@pytest.fixture(scope="module", params=["draft", "wall", "ngram", "off", "lookup"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def small(tiny: Callable[..., Path]) -> Path:
    return tiny("llama", type_name="Q8_0")


@pytest.fixture(scope="module")
def draft(tiny: Callable[..., Path]) -> Path:
    """Agrees with `small` most of the time."""
    return tiny("llama", type_name="Q8_0", noise=0.02)


@pytest.fixture(scope="module")
def target(mode: str, small: Path, tiny: Callable[..., Path]) -> Path:
    """Large enough to be streamed, or quick."""
    return tiny("llama", **LARGE) if mode == "wall" else small


def wall(target: Path, draft: Path) -> int:
    """Bytes of which a fifth of the verifier's weights is missing."""
    plan = make_plan(read_header(target), read_header(draft), ram=1 << 40, n_ctx=256, rows=8)
    return plan.fixed + plan.layout.pinned_bytes * 8 // 10 + max(resident_bytes() - PYTHON, 0)


@pytest.fixture(scope="module")
def theirs(target: Path) -> Iterator[Theirs]:
    with upstream(target, **SIZES) as llama:
        yield llama


@pytest.fixture(scope="module")
def mine(mode: str, target: Path, draft: Path) -> Iterator[Llama]:
    modes: dict[str, dict[str, Any]] = {
        "draft": {"draft_model_path": draft},
        "wall": {"draft_model_path": draft, "ram": wall(target, draft)},
        "ngram": {"speculative": "ngram"},
        "off": {"speculative": "off", "draft_model_path": draft},
        "lookup": {"draft_model": LlamaPromptLookupDecoding(num_pred_tokens=4)},
    }
    with Llama(str(target), **SIZES, **TREES, **modes[mode]) as llama:
        assert llama.speculates and llama._session is not None and llama._session.plan.streams == (mode == "wall")
        yield llama


@pytest.fixture(scope="module")
def plain(target: Path) -> Iterator[Llama]:
    with Llama(str(target), speculative="off", verbose=False, **SIZES) as llama:
        yield llama


def take(llama: Any, n: int, prompt: list[int] = PROMPT, **options: Any) -> list[int]:
    llama.set_seed(5)
    return list(islice(llama.generate(prompt, **options), n))


# tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"temp": 0.0}, {"temp": 1.2}, {"temp": 1.0, "repeat_penalty": 1.2}])
def test_tokens_are_upstreams(mine: Llama, theirs: Theirs, options: dict[str, Any]) -> None:
    assert take(mine, 30, **options) == take(theirs, 30, **options)
    assert mine.n_tokens == theirs.n_tokens
    assert mine.eval_tokens == theirs.eval_tokens


@pytest.fixture(scope="module")
def coupled(small: Path, draft: Path) -> Iterator[tuple[Llama, Llama]]:
    """With a draft, and without any."""
    options = {**SIZES, **TREES, "sampler": "coupled"}
    with (
        Llama(str(small), draft_model_path=draft, **options) as drafted,
        Llama(str(small), speculative="off", **options) as plain,
    ):
        yield drafted, plain


@pytest.mark.parametrize(
    "options",
    [
        {"temp": 0.8},
        {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
        {"temp": -1.0},
        {"temp": 0.9, "repeat_penalty": 1.3, "presence_penalty": 0.5},
        {"temp": 0.9, "grammar": LlamaGrammar.from_string('root ::= ("a" | "b" | "c" | " ")+', verbose=False)},
        {"temp": 0.9, "logits_processor": LogitsProcessorList([lambda ids, scores: scores * (len(ids) % 3)])},
        {"temp": 0.9, "mirostat_mode": 2},
    ],
)
def test_coupled_draws_are_the_same_with_any_draft(coupled: tuple[Llama, Llama], options: dict[str, Any]) -> None:
    texts = [take(llama, 30, **options) for llama in coupled]
    assert texts[0] == texts[1]
    if "grammar" in options:
        assert set(coupled[0].detokenize(texts[0])) <= set(b"abc ")


def test_coupled_draws_are_others_than_upstreams_and_biases_hold(coupled: tuple[Llama, Llama], small: Path) -> None:
    with upstream(small, **SIZES) as theirs:
        assert take(coupled[0], 30, temp=0.9) != take(theirs, 30, temp=0.9)
        assert take(coupled[0], 30, temp=0.9, mirostat_mode=2) == take(theirs, 30, temp=0.9, mirostat_mode=2)
        assert take(coupled[0], 30, temp=0.0) == take(theirs, 30, temp=0.0)
    for llama in coupled:
        biased = llama.create_completion(PROMPT, max_tokens=20, seed=4, logit_bias={70: 100.0})
        assert biased["choices"][0]["text"] == llama.detokenize([70] * 20).decode()


def test_a_sampler_that_does_not_exist_is_refused(small: Path) -> None:
    with pytest.raises(ConfigError, match="sampler must be one of coupled, llama"):
        Llama(str(small), sampler="gumbel", verbose=False)


def test_completions_are_upstreams(mine: Llama, theirs: Theirs) -> None:
    for options in ({"temperature": 0.0, "max_tokens": 20}, {"seed": 3, "stream": True}, {"seed": 4, "echo": True}):
        results = [whole(llama.create_completion("abc abc", **options)) for llama in (mine, theirs)]
        assert results[0] == results[1]


def test_a_second_prompt_reuses_the_first(mine: Llama, theirs: Theirs) -> None:
    for prompt in (PROMPT, PROMPT[:30], [*PROMPT[:30], 99, *PROMPT], PROMPT, [7]):
        assert take(mine, 8, prompt) == take(theirs, 8, prompt)


def test_tokens_may_be_sent(mine: Llama, target: Path) -> None:
    """Upstream takes them for guesses; without logits_all it ends the process."""

    def talk(llama: Any) -> list[int]:
        llama.set_seed(5)
        tokens = llama.generate(PROMPT, temp=1.0)
        return [*islice(tokens, 3), tokens.send([80, 81]), *islice(tokens, 9), tokens.send([3]), *islice(tokens, 9)]

    with upstream(target, **SIZES, logits_all=True) as theirs:
        assert talk(mine) == talk(theirs)


def test_without_reset_a_text_goes_on(mine: Llama, theirs: Theirs) -> None:
    for llama in (mine, theirs):
        take(llama, 5)
    assert take(mine, 8, [30, 31], reset=False) == take(theirs, 8, [30, 31], reset=False)


def test_a_processor_is_asked_once_per_token(mine: Llama, theirs: Theirs) -> None:
    asked: dict[Any, list[list[int]]] = {mine: [], theirs: []}
    for llama in (mine, theirs):

        def remember(ids: Any, scores: Any, llama: Any = llama) -> Any:
            asked[llama].append(ids.tolist())
            return scores

        take(llama, 7, temp=0.0, logits_processor=LogitsProcessorList([remember]))
    assert asked[mine] == asked[theirs]
    assert len(asked[mine]) == 7


def test_eval_and_sample(mine: Llama, theirs: Theirs) -> None:
    def loop(llama: Any) -> list[int]:
        llama.reset()
        llama._sampler = None
        llama.eval(PROMPT)
        drawn = []
        for _ in range(10):
            drawn.append(llama.sample(temp=0.0))
            llama.eval(drawn[-1:])
        return drawn

    assert loop(mine) == loop(theirs)
    assert mine.eval_tokens == theirs.eval_tokens


def test_sampling_after_a_round(mine: Llama, theirs: Theirs) -> None:
    def after(llama: Any) -> int:
        tokens = llama.generate(PROMPT, temp=0.0)
        next(tokens)
        drawn = llama.sample(temp=0.0)
        tokens.close()
        return int(drawn)

    assert after(mine) == after(theirs)


def test_two_texts_in_turn(mine: Llama, theirs: Theirs) -> None:
    whole_texts = [take(theirs, 6, prompt, temp=0.0) for prompt in (PROMPT, PROMPT[::-1])]
    texts = [mine.generate(prompt, temp=0.0) for prompt in (PROMPT, PROMPT[::-1])]
    mixed = [next(tokens) for _ in range(6) for tokens in texts]
    assert [mixed[0::2], mixed[1::2]] == whole_texts


def test_the_context_ends(mine: Llama, theirs: Theirs) -> None:
    def end(llama: Any) -> list[int]:
        tokens = []
        with pytest.raises(RuntimeError):
            for token in llama.generate(PROMPT * 5, temp=0.0):
                tokens.append(token)
        return tokens

    assert end(mine) == end(theirs)
    with pytest.raises(ContextFull, match="257 tokens.*n_ctx"):
        mine.eval([5] * (257 - mine.n_tokens))
    assert take(mine, 5) == take(theirs, 5)


def test_what_others_do_to_the_context_counts(mine: Llama, theirs: Theirs) -> None:
    """As the handlers of pictures do: they evaluate into the context by themselves."""

    def evaluate(llama: Any) -> list[int]:
        llama.reset()
        llama._ctx.kv_cache_clear()
        llama.eval(PROMPT[:10])
        more = (api.llama_token * 20)(*PROMPT[10:30])
        assert api.llama_decode(llama.ctx, api.llama_batch_get_one(more, 20)) == 0
        llama.input_ids[10:30] = PROMPT[10:30]
        llama.n_tokens = 30
        llama.eval(PROMPT[30:])
        return take(llama, 10, temp=0.0)

    assert evaluate(mine) == evaluate(theirs) == take(theirs, 10, temp=0.0)


# states -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 4, 9])
def test_a_state_from_the_middle_of_a_reply(mine: Llama, n: int) -> None:
    whole_text = take(mine, 30, temp=0.0)
    tokens = mine.generate(PROMPT, temp=0.0)
    first = list(islice(tokens, n))
    state = pickle.loads(pickle.dumps(mine.save_state()))
    assert list(islice(tokens, 30 - n)) == whole_text[n:]
    take(mine, 5, [9, 8, 7])
    mine.load_state(state)
    assert list(mine.eval_tokens) == [*PROMPT, *first[:-1]]
    assert take(mine, 30 - n, first[-1:], temp=0.0, reset=False) == whole_text[n:]
    mine.load_state(state)
    assert take(mine, 30 - n, [*PROMPT, *first], temp=0.0) == whole_text[n:]


def test_a_state_from_the_first_round_of_a_long_prompt(mine: Llama, theirs: Theirs) -> None:
    """Behind the wall that round runs in a wide context of its own."""
    prompt = [int(token) for token in np.random.default_rng(1).integers(20, 300, 180)]
    expected = take(theirs, 12, prompt, temp=0.0)
    mine.reset()
    tokens = mine.generate(prompt, temp=0.0)
    first = [next(tokens)]
    state = mine.save_state()
    assert first + list(islice(tokens, 11)) == expected
    mine.load_state(state)
    assert first + take(mine, 11, first, temp=0.0, reset=False) == expected


def test_a_state_is_small(mine: Llama) -> None:
    take(mine, 3)
    state = mine.save_state()
    assert state.scores.shape == (1, mine.n_vocab())
    assert mine.scores.nbytes == 4 * mine.n_vocab()


def test_states_of_another_object(mine: Llama, plain: Llama) -> None:
    take(plain, 6, temp=0.0)
    mine.load_state(plain.save_state())
    assert take(mine, 6, [50], temp=0.0, reset=False) == take(plain, 6, [50], temp=0.0, reset=False)


def test_a_state_that_is_none(mine: Llama, theirs: Theirs) -> None:
    take(mine, 3)
    state = mine.save_state()
    state.llama_state = b"not a state"
    with pytest.raises(RuntimeError, match="restore 11 bytes"):
        mine.load_state(state)
    assert take(mine, 5) == take(theirs, 5)


def test_an_empty_state(mine: Llama, theirs: Theirs) -> None:
    mine.reset()
    state = mine.save_state()
    take(mine, 3)
    mine.load_state(state)
    assert mine.n_tokens == 0
    assert take(mine, 5) == take(theirs, 5)


def test_a_cache_of_states(mine: Llama, theirs: Theirs) -> None:
    for llama in (mine, theirs):
        llama.set_cache(LlamaRAMCache())
    try:
        for prompt in ("abc abc", "xyz", "abc abc abc"):
            results = [whole(llama(prompt, max_tokens=6, temperature=0.0)) for llama in (mine, theirs)]
            assert results[0] == results[1]
    finally:
        for llama in (mine, theirs):
            llama.set_cache(None)


# waiting and stopping ---------------------------------------------------------------------------------


def test_the_twin_gives_the_same(mine: Llama) -> None:
    expected = whole(mine.create_completion("abc", seed=3, max_tokens=12))
    chunks = whole(mine.create_completion("abc", seed=3, max_tokens=12, stream=True))
    chat = whole(mine.create_chat_completion([{"role": "user", "content": "abc"}], seed=3, max_tokens=6))

    async def calls() -> None:
        twin = AsyncLlama(mine)
        assert whole(await twin("abc", seed=3, max_tokens=12)) == expected
        assert whole([c async for c in twin.create_completion("abc", seed=3, max_tokens=12, stream=True)]) == chunks
        messages = [{"role": "user", "content": "abc"}]
        assert whole(await twin.create_chat_completion(messages, seed=3, max_tokens=6)) == chat

    asyncio.run(calls())


def test_calls_of_the_twin_wait_for_each_other(mine: Llama) -> None:
    expected = [whole(mine(str(i), seed=3, max_tokens=8)) for i in range(4)]

    async def calls() -> list[Any]:
        twin = AsyncLlama(mine)
        return await asyncio.gather(*(twin(str(i), seed=3, max_tokens=8) for i in range(4)))

    assert whole(asyncio.run(calls())) == expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stream", [False, True])
def test_cancelling_the_twin_leaves_the_object_right(mine: Llama, seed: int, stream: bool) -> None:
    expected = take(mine, 12, temp=0.0)

    async def read(twin: AsyncLlama) -> None:
        if stream:
            async for _ in twin("abc", seed=3, max_tokens=100, stream=True):
                pass
        else:
            await twin("abc", seed=3, max_tokens=100)

    async def cancelled() -> None:
        task = asyncio.create_task(read(AsyncLlama(mine)))
        await asyncio.sleep(random.Random(seed).uniform(0, 0.2))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert take(mine, 12, temp=0.0) == expected


def test_stopping(mine: Llama, theirs: Theirs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mine, "on_round", lambda _: mine.stop())
    with pytest.raises(Stopped):
        take(mine, 100, temp=0.0)
    monkeypatch.setattr(mine, "on_round", None)
    mine.stop()  # nothing is under way
    assert take(mine, 10, temp=0.0) == take(theirs, 10, temp=0.0)


def test_stopping_what_upstream_does(small: Path) -> None:
    with Llama(str(small), type_k=1, type_v=1, verbose=False, **SIZES) as llama:
        tokens = llama.generate(PROMPT, temp=0.0)
        next(tokens)
        llama.stop()
        with pytest.raises(Stopped):
            next(tokens)
        assert len(take(llama, 3)) == 3


def test_statistics_and_rounds(mine: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[Any] = []
    monkeypatch.setattr(mine, "on_round", rounds.append)
    mine.create_completion("abc", seed=3, max_tokens=20, logit_bias={mine.token_eos(): -100.0})
    stats = mine.last_stats
    assert (stats.passes, stats.emitted) == (len(rounds), 20)
    assert sum(len(r.tokens) for r in rounds) == 20
    assert stats.verify_seconds > 0 and stats.load_seconds > 0


# settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draft_model_pth": "x"}, "draft_model_pth.*did you mean 'draft_model_path'"),
        ({"n_cxt": 5}, "n_cxt.*did you mean 'n_ctx'"),
        ({"zzzzzz": 5}, "zzzzzz'$"),
        ({"max_tree_size": 5, "rows": 5}, "both 'max_tree_size' and its former name 'rows'"),
    ],
)
def test_unknown_arguments(small: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Llama(str(small), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculative": "maybe"}, "speculative.*auto.*maybe"),
        ({"fallback": "maybe"}, "fallback.*llmcad.*maybe"),
        ({"speculative": "draft"}, "draft_model_path"),
        ({"ram": "much"}, "much"),
        ({"ram": 5}, "too few"),
        ({"max_tree_size": 0}, "max-tree-size.*0"),
        ({"rows": 0}, "max-tree-size.*0"),  # its former name
        ({"ngram": "x", "speculative": "off"}, "leave out x"),
        ({"n_threads": 5000}, "threads.*5000"),
    ],
)
def test_wrong_values(small: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Llama(str(small), verbose=False, **options)


def test_files_that_cannot_be_used(small: Path, tiny: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        Llama(str(tmp_path / "none.gguf"), verbose=False)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(ModelError, match="broken"):
        Llama(str(tmp_path / "broken.gguf"), verbose=False)
    with pytest.raises(PairError, match="different vocabularies"):
        Llama(str(small), draft_model_path=tiny("llama", other_vocab=True), verbose=False)


@pytest.mark.parametrize(
    "options",
    [
        {"embedding": True},
        {"vocab_only": True},
        {"kv_overrides": {"llama.rope.freq_base": 5000.0}},
        {"type_k": 1, "type_v": 1},
        {"n_ctx": 4096},
    ],
    ids=str,
)
def test_what_the_engine_cannot_do_is_upstreams(small: Path, draft: Path, options: dict[str, Any]) -> None:
    sizes = SIZES | ALIKE | options
    with (
        Llama(str(small), draft_model_path=draft, verbose=False, **sizes) as mine,
        upstream(small, **sizes) as theirs,
    ):
        assert not mine.speculates
        assert mine.tokenize(b"abc abc") == theirs.tokenize(b"abc abc")
        if "embedding" in options:
            assert mine.create_embedding(["abc", "b"]) == theirs.create_embedding(["abc", "b"])
        elif "vocab_only" not in options:
            assert take(mine, 8) == take(theirs, 8)
            mine.load_state(mine.save_state())
            assert mine.eval_tokens == theirs.eval_tokens


@pytest.mark.parametrize("architecture", ["mamba2", "lfm2", "qwen35"])
def test_models_with_a_state_write_as_upstream(tiny: Callable[..., Path], architecture: str) -> None:
    path, draft = tiny(architecture), tiny(architecture, noise=0.02)
    with (
        Llama(str(path), draft_model_path=str(draft), verbose=False, **SIZES, **ALIKE) as mine,
        upstream(path, **SIZES) as theirs,
    ):
        assert mine.speculates
        for prompt in ("Hello", "Hello there, who", "Another text"):
            assert whole(mine(prompt, max_tokens=24, seed=3)) == whole(theirs(prompt, max_tokens=24, seed=3))
        assert take(mine, 8) == take(theirs, 8)
        mine.load_state(mine.save_state())
        assert mine.eval_tokens == theirs.eval_tokens


@pytest.mark.parametrize("token", [-1, 354])
def test_tokens_that_do_not_exist(mine: Llama, token: int) -> None:
    """With upstream they end the process, or print an error for each token of the text."""
    with pytest.raises(ConfigError, match=f"no token {token}: .* 353"):
        mine.detokenize([5, token])
    with pytest.raises(ConfigError, match=f"no token {token}: .* 353"):
        mine("Hi", max_tokens=2, logit_bias={token: 1.0})


@pytest.mark.parametrize("text", ["root ::= (((", "other ::= [a-z]"])
def test_grammars_that_cannot_be_read(mine: Llama, text: str) -> None:
    """With upstream they end the process."""
    with pytest.raises(ConfigError, match="grammar"):
        mine("abc", grammar=LlamaGrammar.from_string(text, verbose=False))
    assert take(mine, 3)


def test_the_largest_seed_is_a_seed(mine: Llama) -> None:
    """llama.cpp takes it for "at random"."""
    texts = {mine("abc", max_tokens=8, seed=2**32 - 1, temperature=2.0)["choices"][0]["text"] for _ in range(4)}
    assert len(texts) == 1
    texts = {mine("abc", max_tokens=8, seed=-1, temperature=2.0)["choices"][0]["text"] for _ in range(4)}
    assert len(texts) > 1


def test_embeddings_need_to_be_asked_for(mine: Llama) -> None:
    with pytest.raises(RuntimeError, match="embedding=True"):
        mine.create_embedding("abc")


def test_pickling(small: Path, draft: Path) -> None:
    with Llama(str(small), draft_model_path=str(draft), chat_format="chatml", **SIZES, **TREES) as llama:
        expected = take(llama, 8)
        with pickle.loads(pickle.dumps(llama)) as other:
            assert other.speculates and other.chat_format == "chatml"
            assert take(other, 8) == expected == take(llama, 8)


def test_closing(small: Path) -> None:
    llama = Llama(str(small), verbose=False, **SIZES)
    tokens = llama.generate(PROMPT, temp=0.0)
    next(tokens)
    llama.close()
    llama.close()
    for work in (lambda: next(tokens), lambda: take(llama, 1), lambda: llama.eval([5]), llama.save_state, llama.reset):
        with pytest.raises(RuntimeError, match="closed"):
            work()


def test_what_upstreams_server_passes_is_known(small: Path) -> None:
    source = Path(str(Theirs.__init__.__code__.co_filename)).with_name("server") / "model.py"
    call = re.search(r"_model = create_fn\((.*?)\n        \)", source.read_text(), re.DOTALL)
    assert call is not None
    names = re.findall(r"^            (\w+)=", call[1], re.MULTILINE)
    assert {"n_ctx", "rpc_servers", "mul_mat_q", "draft_model"} <= set(names)
    defaults = {name: UPSTREAM[name].default if name in UPSTREAM else None for name in names}
    with Llama(str(small), **(defaults | {"verbose": False, "n_threads": 1})) as llama:
        assert llama.speculates and take(llama, 3)


def test_signatures_are_upstreams() -> None:
    def names(method: Any) -> list[str]:
        return list(inspect.signature(method).parameters)

    ours, theirs = names(Llama), names(Theirs)[:-1]  # but **kwargs
    assert ours[: len(theirs)] == theirs
    assert "max_tree_size" in ours and "rows" not in ours
    for name in ("generate", "create_completion", "create_chat_completion", "__call__", "embed", "from_pretrained"):
        assert names(getattr(Llama, name)) == names(getattr(Theirs, name))


def test_it_is_found_in_the_package() -> None:
    assert (cadcpp.Llama, cadcpp.AsyncLlama) == (Llama, AsyncLlama)
    with pytest.raises(AttributeError, match="Lama"):
        cadcpp.Lama  # noqa: B018
