"""Models with recurrent state: the text is llama.cpp's own, whatever was drafted, interrupted or taken back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.draft.base import Drafter
from cadcpp.draft.ngram_drafter import NgramDrafter
from cadcpp.draft.staged import StagedDrafter
from cadcpp.errors import NativeError
from cadcpp.gguf.blocks import block_of, cache_heads, state_bytes
from cadcpp.gguf.header import read_header
from cadcpp.kv.saved_cache import load_cache, save_cache
from cadcpp.kv.state_cache import cache_of
from cadcpp.modes import Speculative
from cadcpp.native.context import Context, Stopped
from cadcpp.native.layer_reports import OnLayer
from cadcpp.native.lib import api
from cadcpp.native.snapshots import keeps_snapshots
from cadcpp.ngram.predictor import NgramPredictor
from cadcpp.residency.layout import lay_out
from cadcpp.runtime.engine import Engine
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import limit_tree
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.verifier import Verifier
from tests.support.passes import begin, check
from tests.support.plain import PlainLoop, Settings
from tests.support.rig import Rig
from tests.support.vocab import random_text

SNAPSHOTS = ("lfm2", "lfm2moe", "qwen35", "qwen35moe", "nemotron_h")
NO_SNAPSHOTS = ("granitehybrid", "falcon_h1", "mamba2", "mamba")
ALL = SNAPSHOTS + NO_SNAPSHOTS
GREEDY = SamplingConfig(temperature=0.0)
N, ROWS = 32, 9


@pytest.fixture(scope="module", params=["lfm2", "qwen35moe", "falcon_h1", "mamba2"])
def rig(tiny: Callable[..., Path], request: pytest.FixtureRequest) -> Iterator[Rig]:
    with closing(Rig(tiny(request.param), n_ctx=256, max_rows=16, n_batch=32, n_snapshots=ROWS)) as rig:
        yield rig


@pytest.fixture(scope="module")
def drafter(rig: Rig, tiny: Callable[..., Path]) -> Drafter:
    return rig.model_drafter(tiny(rig.model.header.architecture.replace("-", "_"), noise=0.03))


def write(engine: Engine, rig: Rig, prompt: list[int], n: int = N, sampling: SamplingConfig = GREEDY) -> list[int]:
    with closing(rig.sampler(prompt, sampling)) as sampler:
        return [token for result in engine.rounds(prompt, sampler, n) for token in result.tokens]


def is_trunk(verifier: Verifier) -> bool:
    return verifier.context.n_held() == len(verifier.cache)


# the text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ALL)
def test_the_text_is_llama_cpps_own(tiny: Callable[..., Path], architecture: str) -> None:
    """Plain, with a draft of the same kind, and from a text that repeats itself."""
    path, prompt = tiny(architecture), random_text(1, 40)
    drawn = SamplingConfig(seed=5, top_k=40, top_p=0.95, min_p=0.0, sampler="llama")
    with closing(PlainLoop(path, 256)) as plain:
        expected = plain.generate(prompt, N, Settings())
    with closing(PlainLoop(path, 256)) as plain:
        expected += plain.generate(prompt, N, Settings(temperature=0.8, seed=5))
    modes: list[tuple[Speculative, Path | None]]
    modes = [("off", None), ("draft", tiny(architecture, noise=0.02)), ("ngram", None)]
    for mode, draft in modes:
        config = SessionConfig(n_ctx=256, n_threads=1, fallback="none", tree=limit_tree(8), exact="off")
        config = replace(config, speculative=mode)
        with Session(path, draft, config) as session:
            chunks = [c for sampling in (GREEDY, drawn) for c in session.stream(prompt, sampling, N)]
            assert [token for chunk in chunks for token in chunk.tokens] == expected, mode
        passes = [chunk.round for chunk in chunks if chunk.round is not None]
        assert mode != "draft" or len(passes) < len(expected)


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("architecture", ALL)
def test_rows_are_the_same_in_passes_of_any_size(tiny: Callable[..., Path], architecture: str, type_name: str) -> None:
    text, path = random_text(1, 48), tiny(architecture, type_name=type_name)
    found = []
    for n_snapshots, sizes in ((0, [1] * 48), (8, [1] * 48), (0, [3, 5, 7, 9, 11, 13]), (8, [2, 46]), (8, [48])):
        with closing(Rig(path, n_ctx=256, max_rows=48, n_batch=16, n_snapshots=n_snapshots)) as rig:
            found.append(rows_of(rig.context, text, sizes))
    assert all(np.array_equal(rows, found[0]) for rows in found)


def rows_of(context: Context, text: list[int], sizes: Sequence[int]) -> NDArray[np.float32]:
    """Logits of all tokens of a text, evaluated in passes of given sizes."""
    rows, start = [], 0
    for n in sizes:
        context.batch.clear()
        context.batch.add(text[start : start + n], start, 0, 1, True)
        assert api.llama_decode(context.handle, struct_of(context)) == 0  # no row is added
        rows.append(np.stack([context.logits_at(i) for i in range(n)]))
        start += n
    return np.concatenate(rows)


def struct_of(context: Context) -> object:
    context.batch.struct.n_tokens = context.batch.n
    return context.batch.struct


def test_other_drafters(rig: Rig, tiny: Callable[..., Path], drafter: Drafter) -> None:
    prompt = random_text(2, 12) * 3
    whole = write(rig.engine(), rig, prompt)
    dense = rig.model_drafter(tiny("llama", type_name="Q8_0"))
    ngram = NgramDrafter(NgramPredictor())
    staged = StagedDrafter(drafter.context, [], NgramPredictor())  # type: ignore[attr-defined]
    for used in (dense, ngram, staged):
        used.rollback()
        assert write(rig.engine(used, ROWS), rig, prompt) == whole


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("architecture", ALL)
def test_long_texts(tiny: Callable[..., Path], architecture: str, noise: float) -> None:
    path, prompts = tiny(architecture), [random_text(seed, 20 + 40 * seed) for seed in range(6)]
    drawn = SamplingConfig(seed=7)

    def texts(draft: Path | None) -> list[list[int]]:
        mode = "draft" if draft else "off"
        with Session(path, draft, SessionConfig(n_ctx=512, n_threads=1, speculative=mode)) as session:  # type: ignore[arg-type]
            return [
                [token for chunk in session.stream(prompt, sampling, 200) for token in chunk.tokens]
                for prompt in prompts
                for sampling in (GREEDY, drawn)
            ]

    assert texts(tiny(architecture, noise=noise)) == texts(None)


# what is taken back -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ALL)
def each(tiny: Callable[..., Path], request: pytest.FixtureRequest) -> Iterator[Rig]:
    with closing(Rig(tiny(request.param), n_ctx=256, max_rows=16, n_batch=32, n_snapshots=ROWS)) as rig:
        yield rig


@pytest.mark.parametrize("n_right", range(ROWS))
def test_a_chain_of_which_any_part_is_right(each: Rig, n_right: int) -> None:
    """Text is evaluated again only where llama.cpp keeps no snapshots."""
    prompt = random_text(3, 20)
    whole = prompt + write(each.engine(), each, prompt)
    each.context.clear()
    verifier, ids = Verifier(each.context), list(prompt)
    while len(ids) + ROWS < len(whole):
        right = whole[len(ids) : len(ids) + n_right]
        wrong = [(token + 1) % 300 for token in whole[len(ids) + n_right : len(ids) + ROWS - 1]]
        chain = [ids[-1], *right, *wrong][: verifier.room(begin(verifier, ids))]
        tree = TokenTree.build(chain, range(-1, len(chain) - 1), [0.0, *[-0.1 * i for i in range(1, len(chain))]])
        tokens = check(verifier, ids, tree, greedy).tokens(tree)
        assert tokens == whole[len(ids) : len(ids) + len(tokens)] and is_trunk(verifier)
        assert len(tokens) == min(n_right + 1, len(chain))
        ids += tokens
        assert len(verifier.cache) == len(ids) - 1 or each.context.n_snapshots == 0
    assert ids == whole[: len(ids)]


def greedy(context: Context, row: int) -> int:
    return int(np.argmax(context.logits_at(row)))


def test_a_text_is_taken_up_where_the_last_one_began(rig: Rig) -> None:
    """A reply is written anew: only its question is evaluated again."""
    first, second = random_text(4, 70), random_text(5, 20)
    engine = rig.engine()
    reply = write(engine, rig, first, 40)
    again = write(engine, rig, [*first, *reply, *second], 40)
    seen = evaluated(rig.context, lambda: write(engine, rig, [*first, *reply, *second], 40))
    assert seen.text == again
    assert seen.n_rows <= 2 * (len(second) + 1 + 40)
    assert write(rig.engine(), rig, [*first, *reply, *second], 40) == again


class evaluated:  # noqa: N801 - reads as a verb
    """What a call gives, and how many rows it took."""

    def __init__(self, context: Context, call: Callable[[], list[int]]) -> None:
        self.n_rows, decode = 0, context.decode

        def counting(on_layer: OnLayer | None = None) -> None:
            self.n_rows += context.batch.n
            decode(on_layer)

        context.decode = counting  # type: ignore[method-assign]
        try:
            self.text = call()
        finally:
            context.decode = decode  # type: ignore[method-assign]


def test_a_saved_cache_goes_on(rig: Rig, tmp_path: Path) -> None:
    engine, prompt = rig.engine(), random_text(6, 50)
    text = [*prompt, *write(engine, rig, prompt), *random_text(7, 5)]
    save_cache(engine.verifier.cache, tmp_path / "kept")
    other = rig.engine()
    assert load_cache(other.verifier.cache, tmp_path / "kept")
    seen = evaluated(rig.context, lambda: write(other, rig, text))
    assert seen.n_rows <= 2 * (N + 8)
    assert seen.text == write(rig.engine(), rig, text)


# interruptions ----------------------------------------------------------------------------------------


class Interrupted:
    """Stops, or fails, the decode of a given number: before it, in the middle, or after it."""

    def __init__(self, engine: Engine, at: int, how: int) -> None:
        self._engine, self._left, self._how, self._decode = engine, at, how, api.llama_decode

    def __call__(self, handle: int, batch: object) -> int:
        self._left -= 1
        if self._left != 0 or self._how == 0:
            code = 0 if self._left == 0 else int(self._decode(handle, batch))
            return -3 if self._left == 0 else code
        if self._how == 1:
            self._decode(handle, batch)
            return -3
        self._engine.stop()
        return int(self._decode(handle, batch))


def interrupt(rig: Rig, drafter: Drafter, seeds: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = random_text(7, 40)
    whole = write(rig.engine(), rig, prompt)
    engine = rig.engine(drafter, ROWS)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        with monkeypatch.context() as patch, pytest.raises((NativeError, Stopped)):
            patch.setattr(api, "llama_decode", Interrupted(engine, int(rng.integers(1, 12)), int(rng.integers(3))))
            write(engine, rig, [*prompt, *whole[: int(rng.integers(N))], *random_text(seed, 3)])
        assert is_trunk(engine.verifier)
        assert write(engine, rig, prompt) == whole, seed


def test_interruptions_change_no_text(rig: Rig, drafter: Drafter, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(rig, drafter, range(8), monkeypatch)


@pytest.mark.slow
def test_many_interruptions(rig: Rig, drafter: Drafter, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(rig, drafter, range(200), monkeypatch)


def test_the_control_the_state_of_another_text(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the others rest on: a state that is not this text's changes it."""
    prompt, restore, n = random_text(8, 50), rig.context.restore_state, 48  # a whole batch, after which it is kept
    whole = write(rig.engine(), rig, prompt)
    cache = rig.engine().verifier.cache
    cache.prefill(random_text(9, n), n)
    foreign = rig.context.save_state()
    engine = rig.engine()
    with monkeypatch.context() as patch:
        patch.setattr(api, "llama_decode", Interrupted(engine, 2, 1))
        patch.setattr(rig.context, "restore_state", lambda _: restore(foreign))
        with pytest.raises(NativeError, match="code -3"):
            write(engine, rig, prompt)
    assert len(engine.verifier.cache) == n
    assert write(engine, rig, prompt) != whole


# sizes and names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ALL)
def test_states_are_as_large_as_planned(tiny: Callable[..., Path], architecture: str) -> None:
    path = tiny(architecture)
    with closing(Rig(path, n_ctx=256, max_rows=16, n_batch=32)) as rig:
        cache = cache_of(rig.context)
        cache.prefill([5, 6, 7], 3)
        described = 32 + 24 * rig.model.n_layer
        assert 0 <= len(rig.context.save_state()) - state_bytes(read_header(path)) <= described


@pytest.mark.parametrize("architecture", ALL)
def test_the_library_says_whether_it_keeps_snapshots(tiny: Callable[..., Path], architecture: str) -> None:
    assert keeps_snapshots(read_header(tiny(architecture))) == (architecture in SNAPSHOTS)


@pytest.mark.parametrize("architecture", ["qwen35", "qwen35moe"])
def test_blocks_that_predict_further_tokens_are_left_alone(tiny: Callable[..., Path], architecture: str) -> None:
    plain, longer = tiny(architecture), tiny(architecture, n_nextn=1)
    headers = read_header(plain), read_header(longer)
    layouts = [lay_out(header, 0) for header in headers]
    assert layouts[0].n_layers == layouts[1].n_layers == 5 and layouts[0].unused_bytes == 0
    first = min(tensor.offset for tensor in headers[1].tensors if block_of(tensor) == 4)  # the last block of the file
    read = [*layouts[1].pinned, *layouts[1].streamed, *layouts[1].sparse]
    read += [extent for layer in layouts[1].experts for extent in layer.extents(0)]
    assert layouts[1].unused_bytes > 0 and all(extent.stop <= first for extent in read)
    assert cache_heads(headers[0]) == cache_heads(headers[1]) == {3: 1}
    assert state_bytes(headers[0]) == state_bytes(headers[1])
    with closing(Rig(longer, n_ctx=256, max_rows=16, n_batch=32)) as rig:
        assert len(write(rig.engine(), rig, random_text(1, 20), 8)) == 8
