"""Operations on recurrent states are tried before a model with such is first computed with."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cadcpp.config import SessionConfig
from cadcpp.gguf.blocks import state_bytes
from cadcpp.gguf.header import Tensor, read_header
from cadcpp.gguf.sketch import F32, sketch
from cadcpp.gguf.state_sketch import state_sketch
from cadcpp.native import exactness
from cadcpp.native.context import Context
from cadcpp.native.exactness import agrees, find_granularity
from cadcpp.native.layer_reports import OnLayer
from cadcpp.native.model import Model
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.runtime.kernel_choice import kernel_modes
from cadcpp.tree.granularity import Granularity

ALL = ("lfm2", "lfm2moe", "qwen35", "qwen35moe", "nemotron_h", "granitehybrid", "falcon_h1", "mamba2", "mamba")


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known from before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("architecture", ALL)
def test_what_is_tried_has_states_like_the_models(tiny: Callable[..., Path], tmp_path: Path, architecture: str) -> None:
    large = read_header(tiny(architecture))
    state_sketch(large).write(path := tmp_path / "small.gguf")
    small = read_header(path)
    for key in ("ssm.state_size", "ssm.conv_kernel", "shortconv.l_cache", "attention.key_length"):
        assert small.number(key) == large.number(key) or key not in str(large.metadata)
    assert small.architecture == large.architecture and 0 < state_bytes(small) <= state_bytes(large)
    assert {t.name for t in small.tensors} <= {t.name for t in large.tensors}
    with closing(Model(path, vocabulary=False)) as model:
        assert model.n_vocab == 256


@pytest.mark.parametrize("architecture", ALL)
def test_the_promise_of_the_text_is_whole(tiny: Callable[..., Path], architecture: str) -> None:
    mode = kernel_modes(SessionConfig(n_threads=1), read_header(tiny(architecture))).streamed
    assert mode.exact and not mode.untried


def test_a_large_model_is_tried_with_fewer_heads_in_narrower_rows(tiny: Callable[..., Path]) -> None:
    """Heads, states and convolutions are as large as before."""
    header = read_header(tiny("mamba2"))
    wide = replace(header, metadata={**header.metadata}, tensors=tuple(map(_widened, header.tensors)))
    for key, times in (("embedding_length", 16), ("ssm.inner_size", 16), ("ssm.time_step_rank", 16)):
        wide.metadata[f"mamba2.{key}"] = times * header.number(key)
    made = state_sketch(wide).settings
    assert made["embedding_length"] == 256 and made["ssm.inner_size"] == 512
    assert made["ssm.time_step_rank"] == 16 and made["ssm.state_size"] == header.number("ssm.state_size")


def _widened(tensor: Tensor) -> Tensor:
    """As it is in a model sixteen times as wide, with as many more heads; groups and states are the same."""
    wide = {64: 1024, 128: 2048, 4: 64, 160: 2080, 292: 4192}  # widths, heads, and what is made of them and of states
    keep = ("ssm_conv1d",)
    first = tensor.shape[0] if any(name in tensor.name for name in keep) and tensor.shape[1] > 1 else None
    shape = tuple(wide.get(n, n) for n in tensor.shape)
    return replace(tensor, shape=shape if first is None else (first, *shape[1:]))


def test_what_cannot_be_made_small_is_said(tiny: Callable[..., Path]) -> None:
    header = read_header(tiny("lfm2"))
    unknown = replace(header.tensors[-1], name="blk.0.shortconv.unknown.weight")
    strange = replace(header, tensors=(*header.tensors, unknown))
    mode = kernel_modes(SessionConfig(n_threads=1), strange).streamed
    assert mode.exact and "'blk.0.shortconv.unknown.weight'" in mode.untried
    assert "as far as was tried: operations on recurrent states" in mode.promise


@pytest.mark.parametrize("architecture", ["lfm2", "qwen35", "mamba2"])
def test_convolutions_and_norms_are_no_matrices(tiny: Callable[..., Path], architecture: str) -> None:
    """Their type would ask for rows that the model does not need."""
    made = sketch(read_header(tiny(architecture, type_name="Q8_0")))
    assert F32 not in (*made.inner, *made.outer)


def test_floats_are_tried_where_nothing_hides_them(tiny: Callable[..., Path]) -> None:
    header = read_header(tiny("qwen35"))
    changed = [replace(t, type=F32) if "ssm_beta" in t.name else t for t in header.tensors]
    assert F32 in sketch(replace(header, tensors=tuple(changed))).outer


@pytest.mark.parametrize("architecture", ["lfm2", "granitehybrid"])
def test_control_a_bit_of_a_state_is_seen(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """Passes of several rows that leave another state are not exact."""
    made = state_sketch(read_header(tiny(architecture)))
    made.write(path := tmp_path / "small.gguf")
    decode = Context.decode

    def leaving_another(self: Context, on_layer: OnLayer | None = None) -> None:
        n_rows = self.batch.n
        decode(self, on_layer)
        if n_rows == 80:  # the last one
            state = self.save_state()
            state[len(state) // 2] ^= 1
            self.restore_state(state)

    with closing(Model(path, vocabulary=False)) as model:
        found = find_granularity(made, KernelMode(), n_threads=1)
        assert found is not None
        right = KernelMode(granularity=found)
        assert agrees(model, right, 1)
        monkeypatch.setattr(exactness, "_WALKS", ((48, 252),))
        assert agrees(model, right, 1)
        monkeypatch.setattr(Context, "decode", leaving_another)
        assert not agrees(model, right, 1)


def test_snapshots_are_tried_as_well(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_sketch(read_header(tiny("lfm2"))).write(path := tmp_path / "small.gguf")
    seen, init = set[int](), Context.__init__

    def noting(self: Context, *args: object, **how: object) -> None:
        init(self, *args, **how)  # type: ignore[arg-type]
        seen.add(self.n_snapshots)

    monkeypatch.setattr(Context, "__init__", noting)
    with closing(Model(path, vocabulary=False)) as model:
        assert agrees(model, KernelMode(granularity=Granularity(2)), 1)
    assert len(seen) == 2 and 0 in seen
