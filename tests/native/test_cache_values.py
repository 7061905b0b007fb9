"""Values of the KV cache in f16: where they are taken, what they take, and that the text is plain decoding's."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.ctypeslib import as_array

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.kv.saved_cache import load_cache, save_cache
from cadcpp.modes import CacheValues
from cadcpp.native.lib import api
from cadcpp.runtime.session import Session
from cadcpp.runtime.token_writer import complete
from cadcpp.tree.limits import TreeLimits
from tests.support.plain import PlainLoop, Settings
from tests.support.vocab import random_text

N_CTX, N = 1024, 60
CONFIG = SessionConfig(n_ctx=N_CTX, n_threads=1, fallback="none", tree=TreeLimits(max_size=12), cache_values="auto")
GREEDY, DRAWN = SamplingConfig(temperature=0.0), SamplingConfig(temperature=0.8, min_p=0.0, seed=3)
LONG = random_text(1, 560)  # beyond 512 cells llama.cpp has another kernel for single rows, of keys in f16 too


def written(session: Session, sampling: SamplingConfig, prompt: list[int] = LONG) -> list[int]:
    return [token for chunk in session.stream(prompt, sampling, N) for token in chunk.tokens]


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_0", "F16"])
@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_the_text_is_that_of_plain_decoding_with_any_draft(
    tiny: Callable[..., Path], type_name: str, sampling: SamplingConfig
) -> None:
    path, draft, texts = tiny(type_name=type_name), tiny(noise=0.02), {}
    for mode in ("off", "draft", "staged", "ngram"):
        config = replace(CONFIG, speculative=mode)
        with Session(path, draft if mode in ("draft", "staged") else None, config) as session:
            assert session.plan.kernels.f16_values and session.plan.kernels.exact
            assert session.engine.verifier.context.shape.f16_values
            texts[mode] = written(session, sampling)
    assert texts["draft"] == texts["staged"] == texts["ngram"] == texts["off"]


def test_it_is_that_of_llama_cpp_configured_alike(tiny: Callable[..., Path]) -> None:
    """To the last bit, and a cache in q8_0 gives other logits."""
    path, logits = tiny(type_name="Q8_0"), {}
    with Session(path, tiny(noise=0.02), CONFIG) as session:
        text = written(session, GREEDY)
        complete(session.engine.read([*LONG, *text]))
        found = session.engine.verifier.context.logits(1)[0].copy()
    for f16 in (True, False):
        with closing(PlainLoop(path, N_CTX, f16_values=f16)) as loop:
            assert not f16 or loop.generate(LONG, N, Settings()) == text
            loop.generate([*LONG, *text[:-1]], 1, Settings())
            logits[f16] = as_array(api.llama_get_logits_ith(loop.context, -1), (len(found),)).copy()
    assert np.array_equal(found, logits[True]) and not np.array_equal(found, logits[False])


@pytest.mark.parametrize(
    ("asked", "ram", "f16"),
    [
        pytest.param("auto", 1 << 30, True, id="room to spare"),
        pytest.param("auto", "fits", False, id="all stays, but with hardly any room"),
        pytest.param("auto", "streams", False, id="weights are streamed"),
        pytest.param("q8_0", 1 << 30, False, id="q8_0 asked for"),
        pytest.param("f16", "streams", True, id="f16 asked for"),
    ],
)
def test_where_values_are_in_f16(tiny: Callable[..., Path], asked: CacheValues, ram: int | str, f16: bool) -> None:
    path = tiny(type_name="Q8_0", n_layer=12, n_ff=24576)
    config = replace(CONFIG, n_batch=32)  # the least, or a shorter batch would make room
    with Session(path, None, replace(config, cache_values="q8_0", ram=1 << 30)) as session:
        least = session.plan.peak + session.plan.margin
    n_bytes = {"fits": least + (1 << 20), "streams": least - read_header(path).n_bytes // 3}.get(str(ram)) or int(ram)
    with Session(path, None, replace(config, cache_values=asked, ram=n_bytes)) as session:
        assert session.plan.streams == (ram == "streams")
        assert session.plan.kernels.f16_values == session.engine.verifier.context.shape.f16_values == f16
        assert session.plan.to_dict()["cache_values"] == ("f16" if f16 else "q8_0")


@pytest.mark.parametrize("asked", ["q8_0", "f16"])
def test_the_planned_size_is_what_llama_cpp_keeps(tiny: Callable[..., Path], asked: CacheValues) -> None:
    path = tiny(type_name="Q8_0")
    with Session(path, None, replace(CONFIG, cache_values=asked)) as session:
        context = session.engine.verifier.context
        context.batch.clear()
        context.batch.add(random_text(1, 256), 0, 0, 1, False)
        context.decode()
        held = len(context.save()) * context.shape.cells // 256
        assert session.plan.cache <= held <= 1.1 * session.plan.cache


def test_a_kept_cache_of_other_values_is_not_taken_up(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path, file = tiny(type_name="Q8_0"), tmp_path / "cache"
    taken = {}
    with Session(path, None, replace(CONFIG, cache_values="f16")) as session:
        written(session, GREEDY)
        save_cache(session.engine.verifier.cache, file)
    for asked in ("q8_0", "f16"):
        with Session(path, None, replace(CONFIG, cache_values=asked)) as session:
            taken[asked] = load_cache(session.engine.verifier.cache, file)
    assert taken == {"q8_0": False, "f16": True}
