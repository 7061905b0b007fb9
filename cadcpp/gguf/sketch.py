"""A small model with the types and shapes of a large one, as far as kernels tell them apart."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cadcpp.errors import ModelError
from cadcpp.gguf.ggml_base import block_size, row_bytes
from cadcpp.gguf.header import Header, Tensor
from cadcpp.gguf.quantize import quantize
from cadcpp.gguf.writer import Value, Weights, write_model

N_VOCAB = 256
F32 = 0
UNIT = 256  # no kernel looks at more of a row at once, so lengths keep their remainder of it
_WIDTH, _N_MATRICES = 2048, 3  # of an enlarged network
_N_ROWS = 32  # different rows of a matrix, which repeat
MOST_EXPERTS, MOST_USED = 8, 4
_MOST_HEAD = 1024
_NO_HEAD = 64  # size of heads for a model without attention
_OTHER = re.compile(r"conv1d|conv\.weight|norm|_embd|^output\.")
_EXPERTS = "exps"  # in the names of matrices of which rows use some
_ENDS = ("attn_output.weight", "ffn_down.weight", "ffn_down_exps.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """What a small model is made of; types are ggml's numbers, one layer for each of the longest list."""

    n_embd: int
    n_ff: int
    head_size: int
    value_size: int
    n_head: int
    n_head_kv: int
    n_experts: int  # 0: dense
    n_used: int
    inner: tuple[int, ...]  # types of matrices that multiply rows of n_embd
    outer: tuple[int, ...]  # ... of those that multiply what these give
    expert_inner: tuple[int, ...]
    expert_outer: tuple[int, ...]
    router: int
    output: int

    @property
    def n_layer(self) -> int:
        return max(len(self.inner), len(self.outer), len(self.expert_inner), len(self.expert_outer))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def enlarged(self, n_bytes: int) -> "Sketch":
        """One whose feed-forward networks have so many bytes, about; its rows keep their odd ends."""
        kinds = self.inner + self.outer + self.expert_inner + self.expert_outer
        row = max(row_bytes(kind, _WIDTH) for kind in kinds)
        n_ff = n_bytes // (_N_MATRICES * row * self.n_layer * max(self.n_experts, 1))
        return replace(self, n_embd=_WIDTH + self.n_embd % UNIT, n_ff=max(n_ff // UNIT, 1) * UNIT + self.n_ff % UNIT)

    def write(self, path: Path) -> None:
        """Write the small model; the same sketch gives the same bytes."""
        settings: dict[str, Value] = {
            "block_count": self.n_layer,
            "context_length": 1024,
            "embedding_length": self.n_embd,
            "feed_forward_length": self.n_ff,
            "attention.head_count": self.n_head,
            "attention.head_count_kv": self.n_head_kv,
            "attention.key_length": self.head_size,
            "attention.value_length": self.value_size,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.dimension_count": self.head_size,
            "vocab_size": N_VOCAB,
        }
        if self.n_experts:
            settings |= {"expert_count": self.n_experts, "expert_used_count": self.n_used}
        write_model(path, "llama", settings, {f"{name}.weight": weights for name, weights in _tensors(self)})


def sketch(header: Header) -> Sketch:
    """The sketch of a model. Raises ModelError for a shape that llama.cpp has no attention for."""
    n_embd, n_head = header.number("embedding_length"), header.number("attention.head_count")
    size = n_embd // n_head if n_head else _NO_HEAD
    head_size, value_size = header.number("attention.key_length", size), header.number("attention.value_length", size)
    if not 0 < head_size <= _MOST_HEAD or not 0 < value_size <= _MOST_HEAD or not 0 < n_embd:
        raise ModelError(f"{header.path} has heads of {head_size} and {value_size}, in a width of {n_embd}")
    matrices = [t for t in header.tensors if _is_matrix(t)]
    experts = [t for t in matrices if _EXPERTS in t.name]
    dense = [t for t in matrices if _EXPERTS not in t.name and "ffn_gate_inp" not in t.name]
    inner, outer = _split(dense, n_embd)
    expert_inner, expert_outer = _split(experts, n_embd)
    n_experts = header.number("expert_count") if experts else 0
    heads = _heads(value_size, outer)
    return Sketch(
        n_embd=short(n_embd, 2 * UNIT),
        n_ff=short(_inner_size(experts or dense, n_embd), 2 * UNIT),  # kernels differ in how they add blocks up
        head_size=head_size,
        value_size=value_size,
        n_head=heads,
        n_head_kv=1 if header.number("attention.head_count_kv", n_head) < n_head else heads,
        n_experts=min(n_experts, MOST_EXPERTS + n_experts % MOST_EXPERTS),
        n_used=min(header.number("expert_used_count"), MOST_USED) if experts else 0,
        inner=inner or (F32,),
        outer=outer or (F32,),
        expert_inner=expert_inner,
        expert_outer=expert_outer,
        router=next((t.type for t in matrices if "ffn_gate_inp." in t.name), F32),
        output=_output(header),
    )


def _is_matrix(tensor: Tensor) -> bool:
    """Whether rows are multiplied with it on their way to the last layer's end, in a layer or before the first one.

    Convolutions, norms and embeddings have two dimensions as well.
    """
    name = tensor.name
    return tensor.shape[1] > 1 and ".weight" in name and not _OTHER.search(name)


def _split(tensors: Iterable[Tensor], n_embd: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Types of the matrices of a layer's beginning and end; where there are none, those of the others.

    Quantized weights that come after them hide how floats were rounded, for most rows, so all floats are at the end.
    """
    inner, outer = set[int](), set[int]()
    for tensor in tensors:
        is_inner = tensor.shape[0] == n_embd and not tensor.name.endswith(_ENDS)
        (inner if is_inner else outer).add(tensor.type)
    outer |= {kind for kind in inner if block_size(kind) == 1}
    return tuple(sorted(inner or outer)), tuple(sorted(outer or inner))


def _inner_size(tensors: list[Tensor], n_embd: int) -> int:
    return next((t.shape[0] for t in tensors if "ffn_down" in t.name), n_embd)


def short(n: int, least: int) -> int:
    """A shorter row with the same odd end."""
    return n if n <= least else least + n % UNIT


def _heads(size: int, types: Iterable[int]) -> int:
    """Heads whose outputs side by side are whole blocks of all types."""
    block = math.lcm(1, *(max(block_size(kind), 1) for kind in types))
    return block // math.gcd(block, max(size, 1))


def _output(header: Header) -> int:
    types = {tensor.name: tensor.type for tensor in header.tensors}
    return types.get("output.weight", types.get("token_embd.weight", F32))


def _tensors(made: Sketch) -> Iterator[tuple[str, Weights]]:
    n, norm = made.n_embd, Weights(F32, (made.n_embd,), np.ones(made.n_embd, np.float32).tobytes())
    yield "token_embd", random_weights(F32, n, N_VOCAB)
    for i in range(made.n_layer):
        inner, outer = made.inner[i % len(made.inner)], made.outer[i % len(made.outer)]
        yield f"blk.{i}.attn_norm", norm
        yield f"blk.{i}.attn_q", random_weights(inner, n, made.n_head * made.head_size)
        yield f"blk.{i}.attn_k", random_weights(inner, n, made.n_head_kv * made.head_size)
        yield f"blk.{i}.attn_v", random_weights(inner, n, made.n_head_kv * made.value_size)
        yield f"blk.{i}.attn_output", random_weights(outer, made.n_head * made.value_size, n)
        yield f"blk.{i}.ffn_norm", norm
        if made.n_experts:
            yield f"blk.{i}.ffn_gate_inp", random_weights(made.router, n, made.n_experts)
            inner = made.expert_inner[i % len(made.expert_inner)]
            outer = made.expert_outer[i % len(made.expert_outer)]
        experts, suffix = ((made.n_experts,), "_exps") if made.n_experts else ((), "")
        yield f"blk.{i}.ffn_gate{suffix}", random_weights(inner, n, made.n_ff, *experts)
        yield f"blk.{i}.ffn_up{suffix}", random_weights(inner, n, made.n_ff, *experts)
        yield f"blk.{i}.ffn_down{suffix}", random_weights(outer, made.n_ff, n, *experts)
    yield "output_norm", norm
    yield "output", random_weights(made.output, n, N_VOCAB)


def random_weights(kind: int, length: int, *others: int) -> Weights:
    """Weights of a matrix, or of several; their rows are few and come in a random order."""
    order = np.random.default_rng(math.prod(others)).integers(_N_ROWS, size=math.prod(others))
    return Weights(kind, (length, *others), _rows(kind, length)[order].tobytes())


@cache
def _rows(kind: int, length: int) -> Any:
    values = np.random.default_rng(length).standard_normal((_N_ROWS, length), np.float32) / math.sqrt(length)
    return quantize(values, kind)
