"""Routers row by row: what llama.cpp computes of one row it computes of each of many, and graphs stay as they were."""

import ctypes
import platform
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.config import SessionConfig
from cadcpp.errors import NativeError
from cadcpp.gguf.header import read_header
from cadcpp.native import eval_callback, row_products, tensor
from cadcpp.native.activations import Tap
from cadcpp.native.context import Context, Stopped
from cadcpp.native.eval_callback import EvalCallback, Listener
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from cadcpp.residency.states import States
from cadcpp.runtime.kernel_choice import kernel_modes

SHAPE = ContextShape(n_cells=256, n_batch=16, n_outputs=16, n_seq=1)
BY_ROW = replace(SHAPE, routers_by_row=True)
TEXT = list(range(10, 26))
ARCHITECTURES = ["mixture", "gpt_oss", "lfm2moe", "qwen35moe"]
on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="matrices that are no router differ as well"
)


@pytest.fixture
def mixture(tiny: Callable[..., Path]) -> Path:
    return tiny("mixture", type_name="Q8_0", n_embd=256)


class Tapped(Context):
    """Keeps what routers say of each row, which quantized weights after them hide."""

    def _listeners(self) -> dict[bytes, Listener]:
        self.scores = [Tap() for _ in range(self.model.n_layer)]
        named = {f"ffn_moe_probs-{layer}".encode(): scores for layer, scores in enumerate(self.scores)}
        return super()._listeners() | named


def read(context: Tapped, *sizes: int) -> NDArray[np.float32]:
    """Logits and router's scores of the text's rows, [n, numbers], that is read in passes of these sizes."""
    context.clear()
    found, start = [], 0
    for n in sizes:
        context.batch.clear()
        context.batch.add(TEXT[start : start + n], start, 0, 1, True)
        context.decode()
        scores = [one.values.reshape(n, -1) for one in context.scores if len(one.values)]
        found.append(np.concatenate([context.logits(n), *scores], axis=1))
        start += n
    return np.concatenate(found)


@on_x86
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_of_a_pass_are_those_of_passes_of_one_row(tiny: Callable[..., Path], architecture: str) -> None:
    with closing(Model(tiny(architecture, type_name="Q8_0"))) as model:
        states = States() if model.header.number("ssm.state_size") or "lfm2" in architecture else None
        with closing(Tapped(model, replace(BY_ROW, states=states), 2)) as context:
            alone = read(context, *[1] * 16)
            for sizes in ((16,), (2, 3, 5, 6), (1, 8, 7)):
                np.testing.assert_array_equal(read(context, *sizes), alone[: sum(sizes)])
            assert alone.shape[1] > model.n_vocab


@on_x86
def test_control_as_they_come_they_differ(mixture: Path) -> None:
    with closing(Model(mixture)) as model, closing(Tapped(model, SHAPE, 2)) as context:
        assert not np.array_equal(read(context, 16), read(context, *[1] * 16))


def test_of_a_single_row_nothing_changes(mixture: Path) -> None:
    with closing(Model(mixture)) as model, closing(Tapped(model, SHAPE, 1)) as plain:
        with closing(Tapped(model, BY_ROW, 1)) as by_row:
            np.testing.assert_array_equal(read(by_row, *[1] * 16), read(plain, *[1] * 16))


def test_after_a_pass_that_was_stopped_halfway_the_next_is_right(
    mixture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp uses the graph of a pass again for the next one of as many rows."""
    begins, stops = row_products._Product.begins, list[bool]()

    with closing(Model(mixture)) as model, closing(Tapped(model, BY_ROW, 1)) as context:
        before = read(context, 16)

        def begins_and_stops(self: row_products._Product, node: int) -> bool:
            stops.append(begins(self, node))
            context.stop()
            return stops[-1]

        with monkeypatch.context() as patch:
            patch.setattr(row_products._Product, "begins", begins_and_stops)
            with pytest.raises(Stopped):
                read(context, 16)
        context.resume()
        assert stops == [True]
        np.testing.assert_array_equal(read(context, 16), before)


def test_a_router_of_another_name_is_an_error(mixture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(row_products._PRODUCTS, "ffn_gate_inp", ("renamed-{}",))
    with closing(Model(mixture)) as model, closing(Tapped(model, BY_ROW, 1)) as context:
        with pytest.raises(NativeError, match="computes no renamed-0 in .*; exact off goes without"):
            read(context, 2)


@on_x86
def test_a_mixture_that_is_streamed_needs_no_second_row(mixture: Path) -> None:
    streamed = kernel_modes(SessionConfig(n_threads=2), read_header(mixture)).streamed
    assert streamed.exact and streamed.routers_by_row and streamed.granularity.whole(1) == 1
    assert streamed.name == "as they come, routers row by row"


@on_x86
@pytest.mark.parametrize("other", ["layout", "name"])
def test_where_llama_cpp_is_another_passes_are_filled_up(
    mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if other == "layout":
        monkeypatch.setattr(row_products, "is_laid_out", lambda: False)
    else:
        monkeypatch.setitem(row_products._PRODUCTS, "ffn_gate_inp", ("renamed-{}",))
    streamed = kernel_modes(SessionConfig(n_threads=2), read_header(mixture)).streamed
    assert streamed.exact and not streamed.routers_by_row and streamed.granularity.whole(1) == 2


def test_a_dense_model_has_none(tiny: Callable[..., Path]) -> None:
    header = read_header(tiny("llama", type_name="Q8_0"))
    assert not kernel_modes(SessionConfig(n_threads=2), header).streamed.routers_by_row


def test_the_layout_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tensor.is_laid_out()
    tensor.is_laid_out.cache_clear()
    shifted = [(name, kind) for name, kind in tensor.TensorStruct._fields_ if name != "parameters"]
    other = type("Other", (ctypes.Structure,), {"_fields_": shifted})
    monkeypatch.setattr(tensor, "TensorStruct", other)
    assert not tensor.is_laid_out()
    tensor.is_laid_out.cache_clear()


@pytest.mark.parametrize("known", [True, False], ids=["for each pass", "for all"])
def test_of_a_single_row_llama_cpp_asks_of_no_node(mixture: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """But where it makes another graph, for which it sets the callback itself."""
    asked, on_node = list[int](), EvalCallback._on_node

    def counted(self: EvalCallback, node: int, ask: bool, data: int | None) -> bool:
        asked.append(node)
        return on_node(self, node, ask, data)

    monkeypatch.setattr(EvalCallback, "_on_node", counted)
    if not known:
        monkeypatch.setattr(eval_callback, "_library", None)
    with closing(Model(mixture)) as model, closing(Context(model, BY_ROW, 1)) as context:
        counts = []
        for n in (1, 1, 1, 2, 2, 1, 1):
            asked.clear()
            context.clear()
            context.batch.clear()
            context.batch.add(TEXT[:n], 0, 0, 1, True)
            context.decode()
            counts.append(len(asked))
    assert min(counts[3:5]) > 40
    assert ([counts[i] for i in (1, 2, 6)] == [0, 0, 0]) == known
