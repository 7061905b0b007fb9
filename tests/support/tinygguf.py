"""Tiny models with random weights: written in milliseconds, loaded in milliseconds, nothing to download."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from cadcpp.gguf.quantize import quantize
from tests.support.vocab import N_VOCAB, add_vocabulary

_SLOW = ("MXFP4", "Q8_0")  # types of which the package makes the same bytes as ggml in 2 to 9 times the time
Shapes = dict[str, tuple[int, ...]]  # as numpy has them: outputs first, inputs last
Fill = Callable[[str, tuple[int, ...]], NDArray[np.float32]]


def tiny_llama(
    path: Path,
    *,
    seed: int = 0,
    noise: float = 0.0,
    n_layer: int = 2,
    n_embd: int = 64,
    n_head: int = 2,
    n_head_kv: int = 1,
    n_ff: int = 128,
    n_vocab: int = N_VOCAB,
    n_ctx_train: int = 2048,
    type_name: str = "F32",
    other_vocab: bool = False,
    n_padding: int = 0,
    begin: str = "<s>",
    chat_template: str | None = None,
    vocabulary: Mapping[str, Any] | None = None,
) -> Path:
    """A decoder of the llama architecture; 0.5 MB with the defaults.

    The same ``seed`` gives the same weights. ``noise``, in parts of each weight's spread, makes of it a draft that
    agrees less often the higher the noise is. ``other_vocab`` changes the text of one token, ``begin`` that of a
    control token, and ``n_padding`` tokens stand for nothing. ``vocabulary`` has other options of
    `vocab.add_vocabulary`. Heads are 32 wide, because a q8_0 cache needs multiples of 32.
    """
    n_kv = n_embd // n_head * n_head_kv
    n_tokens = n_vocab + n_padding
    shapes: Shapes = {"token_embd.weight": (n_tokens, n_embd)}
    for i in range(n_layer):
        shapes |= attention(f"blk.{i}.", n_embd, n_kv) | feed_forward(f"blk.{i}.", n_embd, n_ff)
    shapes |= {"output_norm.weight": (n_embd,), "output.weight": (n_tokens, n_embd)}
    settings = {
        **sizes(n_layer=n_layer, n_embd=n_embd, n_ff=n_ff, n_ctx_train=n_ctx_train),
        **heads(n_head, n_head_kv),
        "rope.dimension_count": n_embd // n_head,
        "vocab_size": n_tokens,
    }
    spelling = {"n_vocab": n_vocab, "differs": other_vocab, "n_padding": n_padding, "begin": begin}
    vocabulary = {**spelling, **(vocabulary or {})}
    return write(path, "llama", settings, shapes, random_fill(seed, noise), type_name, vocabulary, chat_template)


def tiny_mixture(
    path: Path,
    *,
    seed: int = 0,
    noise: float = 0.0,
    n_layer: int = 2,
    n_embd: int = 64,
    n_ff: int = 64,
    n_experts: int = 8,
    n_used: int = 2,
    type_name: str = "Q8_0",
    tied: bool = False,
) -> Path:
    """A mixture of experts of the llama architecture; ``noise`` as for `tiny_llama`.

    With ``tied`` routers score experts in pairs that are always even.
    """
    shapes: Shapes = {"token_embd.weight": (N_VOCAB, n_embd)}
    for i in range(n_layer):
        shapes |= attention(f"blk.{i}.", n_embd, n_embd // 2) | {
            f"blk.{i}.ffn_norm.weight": (n_embd,),
            f"blk.{i}.ffn_gate_inp.weight": (n_experts, n_embd),
            f"blk.{i}.ffn_gate_exps.weight": (n_experts, n_ff, n_embd),
            f"blk.{i}.ffn_up_exps.weight": (n_experts, n_ff, n_embd),
            f"blk.{i}.ffn_down_exps.weight": (n_experts, n_embd, n_ff),
        }
    shapes |= {"output_norm.weight": (n_embd,), "output.weight": (N_VOCAB, n_embd)}
    settings = {
        **sizes(n_layer=n_layer, n_embd=n_embd, n_ff=n_ff),
        **heads(n_head=n_embd // 32, n_head_kv=n_embd // 64),
        "expert_count": n_experts,
        "expert_used_count": n_used,
        "rope.dimension_count": 32,
        "vocab_size": N_VOCAB,
    }
    fill = random_fill(seed, noise)
    return write(path, "llama", settings, shapes, _in_pairs(fill) if tied else fill, type_name)


def _in_pairs(fill: Fill) -> Fill:
    """The same, but every second row of a router repeats the one before."""

    def filled(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        values = fill(name, shape)
        return np.repeat(values[::2], 2, axis=0)[: len(values)] if "gate_inp" in name else values

    return filled


def tiny_gpt_oss(
    path: Path,
    *,
    seed: int = 0,
    noise: float = 0.0,
    n_layer: int = 4,
    n_embd: int = 128,
    n_ff: int = 128,
    n_experts: int = 32,
    n_used: int = 4,
    window: int = 32,
    type_name: str = "Q8_0",
) -> Path:
    """The shape of gpt-oss: experts in MXFP4, biases everywhere, sinks, and every other layer sees a short window."""
    shapes: Shapes = {"token_embd.weight": (N_VOCAB, n_embd)}
    for i in range(n_layer):
        shapes |= _gpt_oss_block(f"blk.{i}.", n_embd, n_ff, n_experts)
    shapes |= {"output_norm.weight": (n_embd,), "output.weight": (N_VOCAB, n_embd)}
    settings = {
        **sizes(n_layer=n_layer, n_embd=n_embd, n_ff=n_ff),
        **heads(n_head=n_embd // 32, n_head_kv=n_embd // 64),
        "expert_feed_forward_length": n_ff,
        "expert_count": n_experts,
        "expert_used_count": n_used,
        "attention.sliding_window": window,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "rope.dimension_count": 32,
        "vocab_size": N_VOCAB,
    }
    fill, others = random_fill(seed, noise), np.random.default_rng(seed + 1)

    def fill_biases(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        biased = name.endswith("bias") or "sinks" in name
        return (others.standard_normal(shape) / 4).astype(np.float32) if biased else fill(name, shape)

    return write(path, "gpt-oss", settings, shapes, fill_biases, type_name, expert_type="MXFP4")


def _gpt_oss_block(block: str, n_embd: int, n_ff: int, n_experts: int) -> Shapes:
    n_kv = n_embd // 2
    outputs = {"attn_q": n_embd, "attn_k": n_kv, "attn_v": n_kv, "attn_output": n_embd, "ffn_gate_inp": n_experts}
    experts = {"gate": (n_ff, n_embd), "up": (n_ff, n_embd), "down": (n_embd, n_ff)}
    return {
        f"{block}attn_norm.weight": (n_embd,),
        f"{block}post_attention_norm.weight": (n_embd,),
        f"{block}attn_sinks.weight": (n_embd // 32,),
        **{f"{block}{name}.weight": (n, n_embd) for name, n in outputs.items()},
        **{f"{block}{name}.bias": (n,) for name, n in outputs.items()},
        **{f"{block}ffn_{name}_exps.weight": (n_experts, *shape) for name, shape in experts.items()},
        **{f"{block}ffn_{name}_exps.bias": (n_experts, shape[0]) for name, shape in experts.items()},
    }


def tiny_bert(path: Path, *, seed: int = 0, n_layer: int = 2, n_embd: int = 64, n_ff: int = 128) -> Path:
    """An embedding model: it has an encoder only and writes no text."""
    shapes: Shapes = {
        "token_embd.weight": (N_VOCAB, n_embd),
        "token_types.weight": (2, n_embd),
        "position_embd.weight": (512, n_embd),
        **_layer_norm("token_embd_norm", n_embd),
    }
    for i in range(n_layer):
        matrices = attention(f"blk.{i}.", n_embd, n_embd)
        shapes |= {name: shape for name, shape in matrices.items() if len(shape) == 2}
        shapes |= _layer_norm(f"blk.{i}.attn_output_norm", n_embd) | _layer_norm(f"blk.{i}.layer_output_norm", n_embd)
        shapes |= {f"blk.{i}.ffn_up.weight": (n_ff, n_embd), f"blk.{i}.ffn_down.weight": (n_embd, n_ff)}
    settings = {
        **sizes(n_layer=n_layer, n_embd=n_embd, n_ff=n_ff, n_ctx_train=512),
        "attention.head_count": 2,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.causal": False,
        "pooling_type": int(gguf.PoolingType.MEAN),
    }
    return write(path, "bert", settings, shapes, random_fill(seed))


def tiny_t5(path: Path, *, seed: int = 0, n_layer: int = 1, n_embd: int = 64, n_ff: int = 128) -> Path:
    """A model with an encoder and a decoder."""
    shapes: Shapes = {"token_embd.weight": (N_VOCAB, n_embd)}
    for side in ("enc", "dec"):
        shapes[f"{side}.output_norm.weight"] = (n_embd,)
        for i in range(n_layer):
            block = f"{side}.blk.{i}."
            shapes |= _t5_attention(f"{block}attn_", n_embd) | feed_forward(block, n_embd, n_ff)
            shapes[f"{block}attn_rel_b.weight"] = (32, 2)
            shapes |= _t5_attention(f"{block}cross_attn_", n_embd) if side == "dec" else {}
    settings = {
        **sizes(n_layer=n_layer, n_embd=n_embd, n_ff=n_ff),
        **heads(2, 2),
        "attention.relative_buckets_count": 32,
        "attention.layer_norm_epsilon": 1e-5,
        "decoder_start_token_id": 0,
    }
    return write(path, "t5", settings, shapes, random_fill(seed))


def attention(block: str, n_embd: int, n_kv: int) -> Shapes:
    return {
        f"{block}attn_norm.weight": (n_embd,),
        f"{block}attn_q.weight": (n_embd, n_embd),
        f"{block}attn_k.weight": (n_kv, n_embd),
        f"{block}attn_v.weight": (n_kv, n_embd),
        f"{block}attn_output.weight": (n_embd, n_embd),
    }


def _t5_attention(block: str, n_embd: int) -> Shapes:
    return {f"{block}norm.weight": (n_embd,), **{f"{block}{part}.weight": (n_embd, n_embd) for part in "qkvo"}}


def feed_forward(block: str, n_embd: int, n_ff: int) -> Shapes:
    return {
        f"{block}ffn_norm.weight": (n_embd,),
        f"{block}ffn_gate.weight": (n_ff, n_embd),
        f"{block}ffn_up.weight": (n_ff, n_embd),
        f"{block}ffn_down.weight": (n_embd, n_ff),
    }


def _layer_norm(name: str, n_embd: int) -> Shapes:
    return {f"{name}.weight": (n_embd,), f"{name}.bias": (n_embd,)}


def sizes(*, n_layer: int, n_embd: int, n_ff: int, n_ctx_train: int = 2048) -> dict[str, Any]:
    return {
        "block_count": n_layer,
        "context_length": n_ctx_train,
        "embedding_length": n_embd,
        "feed_forward_length": n_ff,
    }


def heads(n_head: int, n_head_kv: int | list[int]) -> dict[str, Any]:
    return {
        "attention.head_count": n_head,
        "attention.head_count_kv": n_head_kv,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }


def random_fill(seed: int, noise: float = 0.0) -> Fill:
    """Weights that keep activations near 1; the noise has its own generator, so that it alone differs."""
    weights, disturbance = np.random.default_rng(seed), np.random.default_rng(seed + 1_000_003)

    def fill(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name.endswith(("norm.weight", "ssm_d")):
            return np.ones(shape, dtype=np.float32)
        if name.endswith("bias"):
            return np.zeros(shape, dtype=np.float32)
        if name.endswith("ssm_a"):
            return -np.ones(shape, dtype=np.float32)
        # Logits spread by several units: a flat distribution would make every draft disagree.
        spread = 1.0 if "embd" in name else (4.0 if name == "output.weight" else 1.0) / shape[-1] ** 0.5
        values = weights.standard_normal(shape)
        if noise:
            values += noise * disturbance.standard_normal(shape)
        values *= spread
        return values.astype(np.float32)

    return fill


def write(
    path: Path,
    architecture: str,
    settings: Mapping[str, Any],
    shapes: Shapes,
    fill: Fill,
    type_name: str = "F32",
    vocabulary: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
    expert_type: str | None = None,
) -> Path:
    """``expert_type`` is that of experts' weights, where it is another one."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    for key, value in settings.items():
        _add(writer, f"{architecture}.{key}", value)
    add_vocabulary(writer, **(vocabulary or {}))
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for name, shape in shapes.items():
        kind = expert_type if expert_type and "_exps" in name else type_name
        _add_tensor(writer, name, fill(name, shape), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def _add_tensor(writer: gguf.GGUFWriter, name: str, values: NDArray[np.float32], type_name: str) -> None:
    kind = gguf.GGMLQuantizationType[type_name if _is_matrix(name, values.shape) else "F32"]
    writer.add_tensor(name, _quantized(values, kind), raw_dtype=kind)


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether weights have the model's type; those of routers, convolutions and states never have."""
    small = len(shape) < 2 or shape[-1] % 32 != 0
    return not small and not any(part in name for part in ("gate_inp", "norm", "bias"))


def _quantized(values: NDArray[np.float32], kind: gguf.GGMLQuantizationType) -> NDArray[Any]:
    if kind.name not in _SLOW:
        with suppress(NotImplementedError):  # the package reads K-quants and does not write them
            return np.asarray(gguf.quants.quantize(values, kind))
    return quantize(values.reshape(-1, values.shape[-1]), int(kind)).reshape(*values.shape[:-1], -1)
