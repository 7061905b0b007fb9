"""Tiny models with recurrent state, of the architectures that llama.cpp has for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf

from tests.support.tinygguf import Shapes, attention, feed_forward, heads, random_fill, sizes, write
from tests.support.vocab import N_VOCAB

N_EMBD, N_FF, N_EXPERTS, N_USED, N_LAYER = 64, 128, 4, 2, 4
_KV = N_EMBD // 2  # two heads of 32, one of them for keys and values
_CONV, _STATE, _GROUPS, _HEADS, _INNER = 4, 16, 1, 4, 2 * N_EMBD  # of Mamba-2
_DELTA_HEADS, _DELTA_STATE = 2, 32  # of the gated delta net: keys and values
_CHANNELS = 2 * _DELTA_STATE + _DELTA_HEADS * _DELTA_STATE


def tiny_lfm2(path: Path, **how: Any) -> Path:
    """Short convolutions, and one layer of attention."""
    shapes: Shapes = {}
    for i in range(N_LAYER):
        shapes |= _lfm2_block(i) | feed_forward(f"blk.{i}.", N_EMBD, N_FF)
    return _write(path, "lfm2", shapes, {"shortconv.l_cache": 3, **_heads(_lfm2_heads())}, **how)


def tiny_lfm2moe(path: Path, **how: Any) -> Path:
    """The same as a mixture; its first block is dense."""
    shapes: Shapes = {}
    for i in range(N_LAYER):
        shapes |= _lfm2_block(i) | (_experts(i, bias=True) if i else feed_forward("blk.0.", N_EMBD, N_FF))
    settings = {
        "shortconv.l_cache": 3,
        "leading_dense_block_count": 1,
        "expert_gating_func": int(gguf.ExpertGatingFuncType.SIGMOID),
        **_heads(_lfm2_heads()),
        **_mixture(),
    }
    return _write(path, "lfm2moe", shapes, settings, **how)


def tiny_qwen35(path: Path, *, n_nextn: int = 0, **how: Any) -> Path:
    """Gated delta nets, and attention in every fourth layer; ``n_nextn`` more blocks predict further tokens."""
    shapes: Shapes = {}
    for i in range(N_LAYER + n_nextn):
        shapes |= _qwen35_block(i, n_nextn) | _without_norm(feed_forward(f"blk.{i}.", N_EMBD, N_FF))
    return _write(path, "qwen35", shapes, _qwen35(n_nextn), n_layer=N_LAYER + n_nextn, **how)


def tiny_qwen35moe(path: Path, *, n_nextn: int = 0, **how: Any) -> Path:
    """The same as a mixture with a shared expert."""
    shapes: Shapes = {}
    for i in range(N_LAYER + n_nextn):
        shapes |= _qwen35_block(i, n_nextn) | _without_norm(_experts(i)) | _shared_expert(i)
    settings = _qwen35(n_nextn) | _mixture() | {"expert_shared_feed_forward_length": N_EMBD}
    return _write(path, "qwen35moe", shapes, settings, n_layer=N_LAYER + n_nextn, **how)


def tiny_granitehybrid(path: Path, **how: Any) -> Path:
    """Mamba-2, and one layer of attention."""
    shapes: Shapes = {}
    for i in range(N_LAYER):
        block = _attention(i) if i == 2 else _mamba2(i)
        shapes |= block | feed_forward(f"blk.{i}.", N_EMBD, N_FF)
    return _write(path, "granitehybrid", shapes, _ssm() | _heads([0, 0, 1, 0]), **how)


def tiny_nemotron_h(path: Path, **how: Any) -> Path:
    """Layers that are Mamba-2, attention or feed-forward alone."""
    up_down = {f"blk.1.ffn_{name}.weight": shape for name, shape in (("up", (N_FF, N_EMBD)), ("down", (N_EMBD, N_FF)))}
    shapes = _mamba2(0) | {"blk.1.attn_norm.weight": (N_EMBD,)} | up_down | _attention(2) | _mamba2(3)
    settings = _ssm() | _heads([0, 0, 1, 0]) | {"feed_forward_length": [0, N_FF, 0, 0]}
    return _write(path, "nemotron_h", shapes, settings | {"attention.layer_norm_epsilon": 1e-5}, **how)


def tiny_falcon_h1(path: Path, **how: Any) -> Path:
    """Mamba-2 and attention side by side in every layer."""
    shapes: Shapes = {}
    for i in range(N_LAYER):
        ffn = feed_forward(f"blk.{i}.", N_EMBD, N_FF)
        ffn[f"blk.{i}.ffn_norm"] = ffn.pop(f"blk.{i}.ffn_norm.weight")
        shapes |= _mamba2(i) | _attention(i) | ffn
    return _write(path, "falcon-h1", shapes, _ssm() | _heads(1), **how)


def tiny_mamba2(path: Path, **how: Any) -> Path:
    """No attention at all."""
    shapes: Shapes = {}
    for i in range(N_LAYER):
        shapes |= _mamba2(i)
    settings = _ssm() | {"attention.head_count": 0, "attention.layer_norm_rms_epsilon": 1e-5}
    return _write(path, "mamba2", shapes, settings, n_ff=0, **how)


def tiny_mamba(path: Path, **how: Any) -> Path:
    """No attention at all, and the first of its kind."""
    d_state, dt_rank = 8, 4
    shapes: Shapes = {}
    for i in range(N_LAYER):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (N_EMBD,),
            f"blk.{i}.ssm_in.weight": (2 * _INNER, N_EMBD),
            f"blk.{i}.ssm_conv1d.weight": (_INNER, _CONV),
            f"blk.{i}.ssm_conv1d.bias": (_INNER,),
            f"blk.{i}.ssm_x.weight": (dt_rank + 2 * d_state, _INNER),
            f"blk.{i}.ssm_dt.weight": (_INNER, dt_rank),
            f"blk.{i}.ssm_dt.bias": (_INNER,),
            f"blk.{i}.ssm_a": (_INNER, d_state),
            f"blk.{i}.ssm_d": (_INNER,),
            f"blk.{i}.ssm_out.weight": (N_EMBD, _INNER),
        }
    settings = {
        "attention.head_count": 0,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "ssm.conv_kernel": _CONV,
        "ssm.inner_size": _INNER,
        "ssm.state_size": d_state,
        "ssm.time_step_rank": dt_rank,
    }
    return _write(path, "mamba", shapes, settings, n_ff=0, **how)


def _write(
    path: Path,
    architecture: str,
    shapes: Shapes,
    settings: dict[str, Any],
    *,
    n_layer: int = N_LAYER,
    n_ff: int = N_FF,
    seed: int = 0,
    noise: float = 0.0,
    type_name: str = "Q8_0",
    chat_template: str | None = None,
) -> Path:
    norm = "token_embd_norm" if architecture.startswith("lfm2") else "output_norm"
    ends: Shapes = {
        "token_embd.weight": (N_VOCAB, N_EMBD),
        f"{norm}.weight": (N_EMBD,),
        "output.weight": (N_VOCAB, N_EMBD),
    }
    whole = {**sizes(n_layer=n_layer, n_embd=N_EMBD, n_ff=n_ff), "vocab_size": N_VOCAB, **settings}
    fill = random_fill(seed, noise)
    return write(path, architecture, whole, ends | shapes, fill, type_name, chat_template=chat_template)


def _heads(kv: int | Sequence[int]) -> dict[str, Any]:
    return heads(2, kv if isinstance(kv, int) else list(kv)) | {"rope.dimension_count": 32}


def _mixture() -> dict[str, Any]:
    return {"expert_count": N_EXPERTS, "expert_used_count": N_USED, "expert_feed_forward_length": N_EMBD}


def _ssm() -> dict[str, Any]:
    numbers = {"conv_kernel": _CONV, "inner_size": _INNER, "state_size": _STATE, "time_step_rank": _HEADS}
    return {f"ssm.{key}": number for key, number in (numbers | {"group_count": _GROUPS}).items()}


def _lfm2_heads() -> list[int]:
    return [0, 1, 0, 0]


def _attention(i: int, *, norms: bool = False) -> Shapes:
    shapes = attention(f"blk.{i}.", N_EMBD, _KV)
    return shapes | {f"blk.{i}.attn_{side}_norm.weight": (_KV,) for side in "qk" if norms}


def _lfm2_block(i: int) -> Shapes:
    if _lfm2_heads()[i]:
        return _attention(i, norms=True)
    return {
        f"blk.{i}.attn_norm.weight": (N_EMBD,),
        f"blk.{i}.shortconv.conv.weight": (N_EMBD, 3),
        f"blk.{i}.shortconv.in_proj.weight": (3 * N_EMBD, N_EMBD),
        f"blk.{i}.shortconv.out_proj.weight": (N_EMBD, N_EMBD),
    }


def _qwen35(n_nextn: int) -> dict[str, Any]:
    return {
        **_heads(1),
        "attention.key_length": 32,
        "attention.value_length": 32,
        "rope.dimension_sections": [8, 4, 4, 0],
        "full_attention_interval": 4,
        "ssm.conv_kernel": _CONV,
        "ssm.inner_size": _DELTA_HEADS * _DELTA_STATE,
        "ssm.state_size": _DELTA_STATE,
        "ssm.time_step_rank": _DELTA_HEADS,
        "ssm.group_count": 1,
        **({"nextn_predict_layers": n_nextn} if n_nextn else {}),
    }


def _qwen35_block(i: int, n_nextn: int) -> Shapes:
    after: Shapes = {f"blk.{i}.post_attention_norm.weight": (N_EMBD,)}
    if i >= N_LAYER:
        nextn: Shapes = {f"blk.{i}.nextn.{name}.weight": (N_EMBD,) for name in ("enorm", "hnorm")}
        after |= nextn | {f"blk.{i}.nextn.eh_proj.weight": (N_EMBD, 2 * N_EMBD)}
    if i % 4 == 3 or i >= N_LAYER:
        gated = {f"blk.{i}.attn_q.weight": (2 * N_EMBD, N_EMBD)}  # with a gate for each number
        return _attention(i, norms=True) | gated | after
    inner = _DELTA_HEADS * _DELTA_STATE
    return after | {
        f"blk.{i}.attn_norm.weight": (N_EMBD,),
        f"blk.{i}.attn_qkv.weight": (_CHANNELS, N_EMBD),
        f"blk.{i}.attn_gate.weight": (inner, N_EMBD),
        f"blk.{i}.ssm_conv1d.weight": (_CHANNELS, _CONV),
        f"blk.{i}.ssm_dt.bias": (_DELTA_HEADS,),
        f"blk.{i}.ssm_a": (_DELTA_HEADS,),
        f"blk.{i}.ssm_beta.weight": (_DELTA_HEADS, N_EMBD),
        f"blk.{i}.ssm_alpha.weight": (_DELTA_HEADS, N_EMBD),
        f"blk.{i}.ssm_norm.weight": (_DELTA_STATE,),
        f"blk.{i}.ssm_out.weight": (N_EMBD, inner),
    }


def _mamba2(i: int) -> Shapes:
    channels = _INNER + 2 * _GROUPS * _STATE
    return {
        f"blk.{i}.attn_norm.weight": (N_EMBD,),
        f"blk.{i}.ssm_in.weight": (_INNER + channels + _HEADS, N_EMBD),
        f"blk.{i}.ssm_conv1d.weight": (channels, _CONV),
        f"blk.{i}.ssm_conv1d.bias": (channels,),
        f"blk.{i}.ssm_dt.bias": (_HEADS,),
        f"blk.{i}.ssm_a": (_HEADS, 1),
        f"blk.{i}.ssm_d": (_HEADS, 1),
        f"blk.{i}.ssm_norm.weight": (_GROUPS, _INNER // _GROUPS),
        f"blk.{i}.ssm_out.weight": (N_EMBD, _INNER),
    }


def _experts(i: int, *, bias: bool = False) -> Shapes:
    shapes: Shapes = {
        f"blk.{i}.ffn_norm.weight": (N_EMBD,),
        f"blk.{i}.ffn_gate_inp.weight": (N_EXPERTS, N_EMBD),
        f"blk.{i}.ffn_gate_exps.weight": (N_EXPERTS, N_EMBD, N_EMBD),
        f"blk.{i}.ffn_up_exps.weight": (N_EXPERTS, N_EMBD, N_EMBD),
        f"blk.{i}.ffn_down_exps.weight": (N_EXPERTS, N_EMBD, N_EMBD),
    }
    return shapes | ({f"blk.{i}.exp_probs_b.bias": (N_EXPERTS,)} if bias else {})


def _shared_expert(i: int) -> Shapes:
    square = {f"blk.{i}.ffn_{name}_shexp.weight": (N_EMBD, N_EMBD) for name in ("gate", "up", "down")}
    return {f"blk.{i}.ffn_gate_inp_shexp.weight": (N_EMBD,), **square}


def _without_norm(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if "ffn_norm" not in name}
