"""A cache that was saved and restored, of a model whose layers see a window, can be rolled back as any other."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.errors import NativeError
from cadcpp.gguf.header import read_header
from cadcpp.kv.saved_cache import load_cache, save_cache
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from cadcpp.residency.memory_plan import make_plan
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import TreeLimits
from tests.support.vocab import random_text

WINDOW, N = 32, 150
OPTIONS: dict[str, Any] = {"n_layer": 4, "n_embd": 256, "n_ff": 256, "n_experts": 32, "n_used": 4, "window": WINDOW}
TEXT = random_text(6, N + 1)
GREEDY = SamplingConfig(temperature=0.0)


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Path]) -> Iterator[Model]:
    with closing(Model(tiny("gpt_oss", **OPTIONS))) as made:
        yield made


def context(model: Model, n_seq: int = 3) -> Context:
    return Context(model, ContextShape(n_cells=512, n_batch=256, n_outputs=1, n_seq=n_seq), 1)


def evaluate(made: Context, start: int, stop: int) -> NDArray[np.float32]:
    """Logits after a part of the text."""
    made.batch.clear()
    made.batch.add(TEXT[start:stop], start, 0, 1, np.arange(stop - start) == stop - start - 1)
    made.decode()
    return np.array(made.logits(1)[0])


def rolled_back(made: Context, stop: int) -> NDArray[np.float32]:
    made.trim(0, stop)
    return evaluate(made, stop, stop + 1)


@pytest.mark.parametrize("n_seq", [1, 3])
@pytest.mark.parametrize("stop", [N, N - 1, N - 20, N - WINDOW, 70, 1])
def test_it_is_rolled_back_as_if_it_were_the_first_one(model: Model, stop: int, n_seq: int) -> None:
    with closing(context(model, n_seq)) as first, closing(context(model, n_seq)) as second:
        evaluate(first, 0, N)
        first.copy_to(second)
        assert second.n_held() == N
        assert (rolled_back(first, stop) == rolled_back(second, stop)).all()


def test_control_what_llama_cpp_saves_of_it_cannot(model: Model) -> None:
    with closing(context(model)) as first, closing(context(model)) as second:
        evaluate(first, 0, N)
        second._restore(first._save(0), 0)
        assert (rolled_back(first, 70) != rolled_back(second, 70)).any()


def test_sequences_keep_their_share(model: Model) -> None:
    with closing(context(model)) as made:
        evaluate(made, 0, N)
        for seq in (1, 2):
            made.fork(0, seq, 0, 100 + seq)
        saved = made.save()
        assert [made.n_held(seq) for seq in range(3)] == [N, 101, 102]
        assert bytes(made.save()) == bytes(saved)


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: data[3:], lambda data: data + b"x"])
def test_damaged_data_is_an_error(model: Model, damage: Callable[[bytes], bytes]) -> None:
    with closing(context(model)) as first, closing(context(model)) as second:
        evaluate(first, 0, N)
        with pytest.raises(NativeError):
            second.restore(damage(bytes(first.save())))


def write(session: Session, prompt: list[int]) -> list[int]:
    return [t for chunk in session.stream(prompt, GREEDY, 24) for t in chunk.tokens]


def test_a_text_that_begins_as_a_long_one_before_it(tiny: Callable[..., Path]) -> None:
    """Which was read in a wide context: as without the one before."""
    path, prompt = tiny("gpt_oss", **{**OPTIONS, "n_layer": 12, "n_ff": 512}), random_text(5, 700)
    plan = make_plan(read_header(path), None, ram=1 << 40, n_ctx=1024, rows=16)
    ram = plan.fixed + (plan.layout.pinned_bytes + plan.layout.expert_bytes) // 2
    config = SessionConfig(n_ctx=1024, n_threads=1, ram=ram, tree=TreeLimits(max_size=16), speculative="ngram")
    texts = []
    for before in (False, True):
        with Session(path, None, config) as session:
            if before:
                write(session, prompt)
            texts.append(write(session, prompt[:650]))
    assert texts[0] == texts[1]


def test_a_chat_that_was_saved_goes_back(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path, texts, file = tiny("gpt_oss", **OPTIONS), [], tmp_path / "chat.cache"
    config = SessionConfig(n_ctx=512, n_threads=1, speculative="off")
    with Session(path, None, config) as session:
        write(session, TEXT)
        save_cache(session.engine.verifier.cache, file)
        texts.append(write(session, TEXT[:80]))
    with Session(path, None, config) as session:
        assert load_cache(session.engine.verifier.cache, file)
        assert len(session.engine.verifier.cache) > N
        texts.append(write(session, TEXT[:80]))
    assert texts[0] == texts[1]
