"""Blocks with a state between those of a model: it computes the same, and its states are there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cadcpp.errors import ToolError
from cadcpp.gguf.blocks import cache_heads, state_blocks, state_bytes
from cadcpp.gguf.header import read_header
from cadcpp.models.edit import add_states as edit
from cadcpp.models.edit.add_states import add_states
from cadcpp.models.edit.widen_ffn import widen
from cadcpp.native.snapshots import keeps_snapshots
from tests.native.test_tinygguf import context, greedy, loaded, logits, tokenize

TEXT = "The same function, and a state beside it."
UNROUNDED = {"type_k": 0, "type_v": 0, "flash_attn_type": 0}


def answers(path: Path) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    with loaded(path) as model, context(model, **UNROUNDED) as ctx:
        return logits(ctx, tokenize(model, TEXT))


def difference(one: Path, other: Path) -> float:
    return float(np.abs(answers(one) - answers(other)).max())


SHAPES = [{}, {"n_head": 4, "n_head_kv": 4, "n_embd": 128}, {"n_layer": 3}]


@pytest.mark.parametrize(("type_name", "tolerance"), [("F32", 1e-4), ("F16", 0.02)])
@pytest.mark.parametrize("shape", SHAPES, ids=["usual", "a head each", "three blocks"])
def test_a_hybrid_computes_the_same(
    tiny: Callable[..., Path], tmp_path: Path, shape: dict[str, int], type_name: str, tolerance: float
) -> None:
    plain, hybrid = tiny(type_name=type_name, **shape), tmp_path / "hybrid.gguf"
    add_states(plain, hybrid)
    assert difference(plain, hybrid) < tolerance
    assert difference(tiny(type_name=type_name, noise=0.01, **shape), hybrid) > tolerance


def test_it_writes_the_same_when_it_is_widened(tiny: Callable[..., Path], tmp_path: Path) -> None:
    plain, hybrid, wide = tiny(), tmp_path / "hybrid.gguf", tmp_path / "wide.gguf"
    add_states(plain, hybrid)
    widen(hybrid, wide, 384)
    with loaded(plain) as model:
        ids = tokenize(model, TEXT)
    written = greedy(plain, ids, 48, **UNROUNDED)
    assert greedy(wide, ids, 48, **UNROUNDED) == written
    assert greedy(tiny(noise=0.02), ids, 48, **UNROUNDED) != written


@pytest.mark.parametrize("broken", ["attn_norm", "attn_q", "ffn_down", "rows"])
def test_the_control_what_is_scaled_or_turned_wrongly_differs(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    if broken == "rows":
        monkeypatch.setattr(edit, "_halves", lambda data, n_head: data)
    else:
        monkeypatch.setitem(edit._SCALES, broken, 1.0)
    add_states(tiny(), tmp_path / "hybrid.gguf")
    assert difference(tiny(), tmp_path / "hybrid.gguf") > 1e-2


def test_its_states_are_there(tiny: Callable[..., Path], tmp_path: Path) -> None:
    plain, hybrid = tiny(n_layer=3), tmp_path / "hybrid.gguf"
    add_states(plain, hybrid)
    header = read_header(hybrid)
    assert header.architecture == "lfm2" and keeps_snapshots(header)
    assert state_blocks(header) == {0, 2, 4} and len(cache_heads(header)) == 3
    assert state_bytes(header) == 3 * 4 * header.number("embedding_length") * (edit.L_CACHE - 1)


@pytest.mark.parametrize("model", ["quantized", "mixture", "hybrid"])
def test_what_cannot_become_one_is_refused(tiny: Callable[..., Path], tmp_path: Path, model: str) -> None:
    made = {"quantized": tiny(type_name="Q8_0"), "mixture": tiny("mixture"), "hybrid": tiny("lfm2", type_name="F32")}
    with pytest.raises(ToolError, match="cannot become a hybrid"):
        add_states(made[model], tmp_path / "none.gguf")
    assert not (tmp_path / "none.gguf").exists()


def test_weights_that_are_too_large_are_refused(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(edit._SCALES, "attn_output", 2.0**20)
    with pytest.raises(ToolError, match="attn_output.*too large"):
        add_states(tiny(type_name="F16"), tmp_path / "none.gguf")
