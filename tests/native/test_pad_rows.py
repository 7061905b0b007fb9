"""Rows padded to whole blocks of the K-quants, on tiny models."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import pytest

from cadcpp.errors import ModelError, ToolError
from cadcpp.gguf.ggml_base import type_name
from cadcpp.gguf.header import read_header
from cadcpp.models.edit.pad_rows import BLOCK, pad_rows
from cadcpp.models.edit.quantize import requantize
from cadcpp.models.edit.rewrite import NewTensor, open_gguf, rewrite, stored_shape
from cadcpp.models.edit.widen_ffn import widen
from tests.native.test_tinygguf import context, greedy, loaded, logits, tokenize

TEXT = "The same function, only longer rows."
SHAPES = [
    pytest.param({"n_embd": 576, "n_head": 9, "n_head_kv": 3}, 768, id="as-smollm2"),
    pytest.param({"n_embd": 160, "n_head": 5, "n_head_kv": 5}, 256, id="a-head-each"),
    pytest.param({"n_embd": 64, "n_head": 2, "n_head_kv": 1}, 256, id="one-group"),
]
UNROUNDED = {"type_k": 0, "type_v": 0, "flash_attn_type": 0}  # a cache in F32: one of F16 rounds up or down
EPSILON = "llama.attention.layer_norm_rms_epsilon"


def answers(path: Path) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    with loaded(path) as model, context(model, **UNROUNDED) as ctx:
        return logits(ctx, tokenize(model, TEXT))


def difference(one: Path, other: Path) -> float:
    return float(np.abs(answers(one) - answers(other)).max())


def with_epsilon(src: Path, dst: Path, value: float) -> Path:
    reader = open_gguf(src)
    same = [NewTensor(t, t.name, stored_shape(t), partial(getattr, t, "data")) for t in reader.tensors]
    rewrite(reader, dst, {EPSILON: value}, same, lambda fraction: None)
    return dst


# With weights in F16 llama.cpp rounds what they are multiplied with, up or down.
@pytest.mark.parametrize(("type_name", "tolerance"), [("F32", 1e-4), ("F16", 0.02)])
@pytest.mark.parametrize(("shape", "n_embd"), SHAPES)
def test_a_padded_model_computes_the_same(
    tiny: Callable[..., Path], tmp_path: Path, shape: dict[str, int], n_embd: int, type_name: str, tolerance: float
) -> None:
    plain, wide = tiny(type_name=type_name, **shape), tmp_path / "wide.gguf"
    pad_rows(plain, wide)
    assert read_header(wide).number("embedding_length") == n_embd
    assert difference(plain, wide) < tolerance
    assert difference(tiny(type_name=type_name, noise=0.01, **shape), wide) > tolerance


@pytest.mark.parametrize("text", ["Hello", "one two three", "def main():"])
def test_a_padded_model_writes_the_same(tiny: Callable[..., Path], tmp_path: Path, text: str) -> None:
    plain, wide = tiny(n_embd=576, n_head=9, n_head_kv=3), tmp_path / "wide.gguf"
    pad_rows(plain, wide)
    with loaded(plain) as model:
        ids = tokenize(model, text)
    written = greedy(plain, ids, 48, **UNROUNDED)
    assert greedy(wide, ids, 48, **UNROUNDED) == written
    assert greedy(tiny(n_embd=576, n_head=9, n_head_kv=3, noise=0.02), ids, 48, **UNROUNDED) != written


def test_a_padded_model_computes_the_same_where_epsilon_matters(tiny: Callable[..., Path], tmp_path: Path) -> None:
    plain, wide = with_epsilon(tiny(), tmp_path / "plain.gguf", 0.5), tmp_path / "wide.gguf"
    pad_rows(plain, wide)
    assert difference(plain, wide) < 1e-4
    kept = with_epsilon(wide, tmp_path / "kept.gguf", 0.5)
    assert difference(plain, kept) > 1e-2  # so the test would notice if it were kept


def test_the_rows_are_whole_blocks_and_are_quantized_as_such(tiny: Callable[..., Path], tmp_path: Path) -> None:
    plain = tiny(n_embd=192, n_head=6, n_head_kv=2)
    pad_rows(plain, tmp_path / "padded.gguf")
    kinds = {}
    for name in ("plain", "padded"):
        requantize(tmp_path / "padded.gguf" if name == "padded" else plain, tmp_path / "quantized.gguf", "Q4_K_M")
        kinds[name] = matrix_types(tmp_path / "quantized.gguf")
    assert kinds["padded"] == {"q4_K", "q6_K"}
    assert not kinds["plain"] & {"q4_K", "q6_K"}  # what padding is for


def matrix_types(path: Path) -> set[str]:
    matrices = [tensor for tensor in read_header(path).tensors if len(tensor.shape) > 1 and tensor.shape[1] > 1]
    return {type_name(tensor.type) for tensor in matrices}


def test_a_padded_model_can_be_widened(tiny: Callable[..., Path], tmp_path: Path) -> None:
    pad_rows(tiny(), tmp_path / "padded.gguf")
    widen(tmp_path / "padded.gguf", tmp_path / "wide.gguf", 3 * BLOCK)
    assert difference(tiny(), tmp_path / "wide.gguf") < 1e-4


def test_blocks_of_quantized_weights_are_kept_as_they_are(tiny: Callable[..., Path], tmp_path: Path) -> None:
    plain, wide = tiny(type_name="Q8_0"), tmp_path / "wide.gguf"
    pad_rows(plain, wide)
    for old, new in zip(gguf.GGUFReader(plain).tensors, gguf.GGUFReader(wide).tensors, strict=True):
        if old.data.ndim == 2:
            rows, n_bytes = old.data.shape
            assert np.array_equal(old.data, new.data[:rows, :n_bytes])
            assert not new.data[rows:].any() and not new.data[:, n_bytes:].any()


def test_the_name_says_that_it_is_padded(tiny: Callable[..., Path], tmp_path: Path) -> None:
    pad_rows(tiny(), tmp_path / "wide.gguf")
    name = read_header(tmp_path / "wide.gguf").metadata["general.name"]
    assert name.endswith("padded from 64 channels and 2 heads to 256 and 8 (same function)")


def test_what_is_long_enough_stays_as_it_is(tiny: Callable[..., Path], tmp_path: Path) -> None:
    pad_rows(tiny(), tmp_path / "once.gguf")
    pad_rows(tmp_path / "once.gguf", tmp_path / "twice.gguf")
    assert (tmp_path / "once.gguf").read_bytes() == (tmp_path / "twice.gguf").read_bytes()


@pytest.mark.parametrize("architecture", ["mixture", "mamba", "lfm2"])
def test_another_architecture_is_refused(tiny: Callable[..., Path], tmp_path: Path, architecture: str) -> None:
    with pytest.raises(ToolError, match="cannot be padded; take a dense model of the llama architecture"):
        pad_rows(tiny(architecture), tmp_path / "wide.gguf")
    assert os.listdir(tmp_path) == []


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no model, but long enough to have a header")
    with pytest.raises(ModelError, match="text is not a GGUF model"):
        pad_rows(tmp_path / "text", tmp_path / "wide.gguf")
