"""Header-only files of published hybrids: what a plan needs of a model that is not there.

    python -m bench.predict.published DIRECTORY        writes them; `cadcpp plan -m` reads them

Each is a GGUF with the model's numbers and tensors, and a hole in place of weights. Weights have the types that
llama.cpp's Q4_K_M gives them (drafts: Q8_0), so that a file is about as large as the published one.
"""

import argparse
from dataclasses import dataclass
from math import prod
from pathlib import Path

import gguf
import numpy as np

from bench.predict.devices import Architecture
from bench.program import run_program
from cadcpp.gguf.ggml_base import row_bytes

Tensors = dict[str, tuple[int, ...]]  # shapes, the contiguous dimension first
_F32 = gguf.GGMLQuantizationType.F32
_L_CACHE, _CONV = 3, 4  # tokens that a convolution sees
_KEY_HEADS, _STATE = 16, 128  # of gated delta nets
_LFM2_ATTENTION = (2, 5, 9, 13, 17, 21, 24, 27)
_Q4_K, _Q5_K, _Q6_K, _Q8_0 = (gguf.GGMLQuantizationType[name] for name in ("Q4_K", "Q5_K", "Q6_K", "Q8_0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hybrid(Architecture):
    """The numbers of a hybrid, as its makers publish them."""

    architecture: str
    attention: tuple[int, ...]  # layers that have attention; the others have a state
    value_heads: int = 0  # of a gated delta net
    is_draft: bool = False

    def tensors(self) -> Tensors:
        norm = "token_embd_norm" if self.architecture == "lfm2" else "output_norm"
        found = {"token_embd.weight": (self.width, self.vocabulary), f"{norm}.weight": (self.width,)}
        if not self.tied:
            found["output.weight"] = (self.width, self.vocabulary)
        state = _short_convolution if self.architecture == "lfm2" else _delta_net
        for i in range(self.layers):
            block = _attention(self) if i in self.attention else state(self)
            found |= {f"blk.{i}.{name}": shape for name, shape in (block | _feed_forward(self)).items()}
        return found

    def numbers(self) -> dict[str, int]:
        """Of the header, without the architecture's name in front."""
        found = {
            "block_count": self.layers,
            "context_length": 131072,
            "embedding_length": self.width,
            "feed_forward_length": self.hidden,
            "attention.head_count": self.heads,
            "attention.key_length": self.head_size,
            "attention.value_length": self.head_size,
            "vocab_size": self.vocabulary,
        }
        if self.architecture == "lfm2":
            return found | {"shortconv.l_cache": _L_CACHE}
        return found | {
            "full_attention_interval": 4,
            "rope.dimension_count": 64,
            "ssm.conv_kernel": _CONV,
            "ssm.state_size": _STATE,
            "ssm.group_count": _KEY_HEADS,
            "ssm.time_step_rank": self.value_heads,
            "ssm.inner_size": self.value_heads * _STATE,
        }

    def kind(self, name: str, shape: tuple[int, ...]) -> gguf.GGMLQuantizationType:
        """The type of a tensor's weights, by llama.cpp's rules for Q4_K_M."""
        if len(shape) == 1 or "conv1d" in name or "shortconv.conv." in name:
            return _F32
        if self.is_draft or "ssm_alpha" in name or "ssm_beta" in name:
            return _Q8_0
        if name == "output.weight" or (self.tied and name == "token_embd.weight"):
            return _Q6_K
        if "attn_v." in name or "ffn_down" in name:
            return _Q6_K if _has_more_bits(int(name.split(".")[1]), self.layers) else _Q4_K
        return _Q5_K if "attn_qkv" in name else _Q4_K


def _every_fourth(layers: int) -> tuple[int, ...]:
    return tuple(range(3, layers, 4))


def _qwen35(layers: int, width: int, heads: int, kv_heads: int, hidden: int, value_heads: int, tied: bool) -> Hybrid:
    return Hybrid(
        architecture="qwen35",
        layers=layers,
        attention=_every_fourth(layers),
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_size=256,
        hidden=hidden,
        vocabulary=248320,
        tied=tied,
        value_heads=value_heads,
        is_draft=width == 1024,
    )


def _lfm2(layers: int, attention: tuple[int, ...], width: int, hidden: int, vocabulary: int) -> Hybrid:
    return Hybrid(
        architecture="lfm2",
        layers=layers,
        attention=attention,
        width=width,
        heads=width // 64,
        kv_heads=8,
        head_size=64,
        hidden=hidden,
        vocabulary=vocabulary,
        tied=True,
        is_draft=width == 1024,
    )


# config.json of Qwen/Qwen3.5-0.8B, -4B, -9B, -27B and LiquidAI/LFM2-350M, -2.6B. LFM2.5-2.6B is taken to be LFM2-2.6B
# with about twice the vocabulary, since its file is larger by just that.
HYBRIDS = {
    "qwen3.5-0.8b": _qwen35(24, 1024, 8, 2, 3584, 16, True),
    "qwen3.5-4b": _qwen35(32, 2560, 16, 4, 9216, 32, True),
    "qwen3.5-9b": _qwen35(32, 4096, 16, 4, 12288, 32, False),
    "qwen3.5-27b": _qwen35(64, 5120, 24, 4, 17408, 48, False),
    "lfm2-350m": _lfm2(16, (2, 5, 8, 10, 12, 14), 1024, 4608, 65536),
    "lfm2-2.6b": _lfm2(30, _LFM2_ATTENTION, 2048, 10752, 65536),
    "lfm2.5-2.6b": _lfm2(30, _LFM2_ATTENTION, 2048, 10752, 128000),
}


def _attention(a: Hybrid) -> Tensors:
    gate = 2 if a.architecture == "qwen35" else 1  # queries with a gate for each number
    kv = a.kv_heads * a.head_size
    return {
        "attn_norm.weight": (a.width,),
        "attn_q.weight": (a.width, gate * a.heads * a.head_size),
        "attn_k.weight": (a.width, kv),
        "attn_v.weight": (a.width, kv),
        "attn_output.weight": (a.heads * a.head_size, a.width),
        "attn_q_norm.weight": (a.head_size,),
        "attn_k_norm.weight": (a.head_size,),
    }


def _short_convolution(a: Hybrid) -> Tensors:
    return {
        "attn_norm.weight": (a.width,),
        "shortconv.conv.weight": (_L_CACHE, a.width),
        "shortconv.in_proj.weight": (a.width, 3 * a.width),
        "shortconv.out_proj.weight": (a.width, a.width),
    }


def _delta_net(a: Hybrid) -> Tensors:
    inner, channels = a.value_heads * _STATE, (2 * _KEY_HEADS + a.value_heads) * _STATE
    return {
        "attn_norm.weight": (a.width,),
        "attn_qkv.weight": (a.width, channels),
        "attn_gate.weight": (a.width, inner),
        "ssm_conv1d.weight": (_CONV, channels),
        "ssm_dt.bias": (a.value_heads,),
        "ssm_a": (a.value_heads,),
        "ssm_beta.weight": (a.width, a.value_heads),
        "ssm_alpha.weight": (a.width, a.value_heads),
        "ssm_norm.weight": (_STATE,),
        "ssm_out.weight": (inner, a.width),
    }


def _feed_forward(a: Hybrid) -> Tensors:
    norm = "ffn_norm" if a.architecture == "lfm2" else "post_attention_norm"
    ups = {f"ffn_{name}.weight": (a.width, a.hidden) for name in ("gate", "up")}
    return {f"{norm}.weight": (a.width,), **ups, "ffn_down.weight": (a.hidden, a.width)}


def _has_more_bits(i: int, n: int) -> bool:
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def write(name: str, folder: Path) -> Path:
    """The header-only file of one of HYBRIDS, in ``folder``."""
    a, path = HYBRIDS[name], folder / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, a.architecture)
    for key, number in a.numbers().items():
        writer.add_uint32(f"{a.architecture}.{key}", number)
    _add_kv_heads(writer, a)
    writer.add_float32(f"{a.architecture}.attention.layer_norm_rms_epsilon", 1e-6)
    if a.architecture == "qwen35":
        writer.add_array("qwen35.rope.dimension_sections", [11, 11, 10, 0])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_merges(["a b"])  # that there are some is what a plan looks at
    for tensor, shape in a.tensors().items():
        kind = a.kind(tensor, shape)
        n_bytes = row_bytes(kind, shape[0]) * prod(shape[1:])
        writer.add_tensor_info(tensor, shape[::-1], np.dtype(np.float32), n_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    _extend(path, writer)
    return path


def _add_kv_heads(writer: gguf.GGUFWriter, a: Hybrid) -> None:
    key = f"{a.architecture}.attention.head_count_kv"
    if a.architecture == "lfm2":  # by layer, since that is how it is known which have a state
        writer.add_array(key, [a.kv_heads if i in a.attention else 0 for i in range(a.layers)])
    else:
        writer.add_uint32(key, a.kv_heads)


def _extend(path: Path, writer: gguf.GGUFWriter) -> None:
    """A hole where weights would be."""
    data = sum(writer.ggml_pad(info.nbytes, writer.data_alignment) for part in writer.tensors for info in part.values())
    start = writer.ggml_pad(path.stat().st_size, writer.data_alignment)
    with path.open("r+b") as file:
        file.truncate(start + data)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.predict.published", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in HYBRIDS:
        print(write(name, folder))


if __name__ == "__main__":
    run_program(main)
