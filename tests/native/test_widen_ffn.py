"""Widening and re-quantizing, on tiny models."""

import os
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from cadcpp.errors import ConfigError, ModelError, ToolError
from cadcpp.models.edit.quantize import requantize
from cadcpp.models.edit.widen_ffn import Widenable, widen
from tests.native.test_tinygguf import context, loaded, logits, tokenize

TEXT = "The same function, only wider."


def answers(path: Path) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    with loaded(path) as model, context(model) as ctx:
        return logits(ctx, tokenize(model, TEXT))


@pytest.mark.parametrize("type_name", ["F32", "F16", "Q8_0", "Q4_0"])
def test_a_widened_model_computes_the_same(tiny: Callable[..., Path], tmp_path: Path, type_name: str) -> None:
    plain = tiny(type_name=type_name)
    widen(plain, tmp_path / "wide.gguf", 128 + 512)
    difference = np.abs(answers(plain) - answers(tmp_path / "wide.gguf")).max()
    assert difference < 1e-4, f"largest logit difference {difference}"


def test_the_test_above_would_notice_a_change(tiny: Callable[..., Path]) -> None:
    assert np.abs(answers(tiny()) - answers(tiny(noise=0.001))).max() > 1e-3


def test_width_name_and_size_are_as_announced(tiny: Callable[..., Path], tmp_path: Path) -> None:
    wide = tmp_path / "wide.gguf"
    model = Widenable(tiny())
    fractions: list[float] = []
    model.write(wide, 128 + 256, progress=fractions.append)
    reader = gguf.GGUFReader(wide)
    assert reader.get_field("llama.feed_forward_length").contents() == 384
    assert "widened from n_ff 128 to 384" in reader.get_field("general.name").contents()
    assert 0 <= wide.stat().st_size - model.file_bytes_at(384) < 200
    assert fractions == sorted(fractions) and fractions[-1] == 1


def test_the_width_for_a_size_is_the_largest_that_fits(tiny: Callable[..., Path]) -> None:
    model = Widenable(tiny())
    size = model.file_bytes_at(128 + 3 * 256)
    assert [model.n_ff_within(size + more) for more in (-1, 0, 1)] == [128 + 2 * 256, 128 + 3 * 256, 128 + 3 * 256]


@pytest.mark.parametrize("n_ff", [0, 64, 129, 128 + 255])
def test_a_width_that_cannot_be_is_refused(tiny: Callable[..., Path], tmp_path: Path, n_ff: int) -> None:
    with pytest.raises(ConfigError, match=f"n_ff must be 128 plus a multiple of 256, got {n_ff}"):
        widen(tiny(), tmp_path / "wide.gguf", n_ff)
    assert os.listdir(tmp_path) == []


def test_a_model_without_feed_forward_layers_is_refused(tiny: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no gated feed-forward layers"):
        widen(tiny("mamba"), tmp_path / "wide.gguf", 256)


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no model, but long enough to have a header")
    with pytest.raises(ModelError, match="text is not a GGUF model"):
        widen(tmp_path / "text", tmp_path / "wide.gguf", 256)
    with pytest.raises(ModelError, match="text is not a GGUF model"):
        requantize(tmp_path / "text", tmp_path / "quantized.gguf", "Q8_0")
    assert os.listdir(tmp_path) == ["text"]


@pytest.mark.parametrize("type_name", ["Q8_0", "q4_0", "Q4_K_M", "Q2_K", "F16"])
def test_requantized_models_load_and_nothing_is_printed(
    tiny: Callable[..., Path], tmp_path: Path, type_name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    requantize(tiny(), tmp_path / "other.gguf", type_name)
    assert np.isfinite(answers(tmp_path / "other.gguf")).all()
    assert capfd.readouterr() == ("", "")


def test_an_unknown_type_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown type 'Q9'; choose one of Q2_K"):
        requantize(tmp_path / "any", tmp_path / "other.gguf", "Q9")


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no file .*any to re-quantize"):
        requantize(tmp_path / "any", tmp_path / "other.gguf", "Q8_0")
