"""A small model of the same architecture as a large one with recurrent states: of what its operations depend on."""

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from cadcpp.errors import ModelError
from cadcpp.gguf.blocks import ahead_blocks, block_of
from cadcpp.gguf.ggml_base import block_size
from cadcpp.gguf.header import Header, Tensor, read_integers
from cadcpp.gguf.sketch import F32, MOST_EXPERTS, MOST_USED, N_VOCAB, UNIT, random_weights, short
from cadcpp.gguf.writer import Value, Weights, write_model

_MOST_SCALE = 32
_BLOCK = re.compile(r"blk\.\d+\.")
_LEFT_OUT = ("rope_freqs",)  # llama.cpp needs none of it
_LAYERED = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")  # may be a number for each layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """The numbers that the shapes of a model's tensors are made of."""

    embd: int
    vocab: int
    heads: int
    heads_kv: int
    head: int  # size of one for keys
    value: int
    ff: int
    ff_expert: int
    ff_shared: int
    experts: int
    inner: int  # of the recurrent operations
    state: int
    ranks: int  # of time steps: heads, but for the first Mamba
    groups: int
    conv: int

    @property
    def both(self) -> int:
        """Queries and keys of recurrent heads, or what they have in place of them."""
        return 2 * self.groups * self.state


@dataclass(frozen=True, slots=True)
class StateSketch:
    """What a small model is made of: tensors by name, with their type and shape."""

    architecture: str
    settings: dict[str, Value]
    tensors: tuple[tuple[str, int, tuple[int, ...]], ...]

    @property
    def n_layer(self) -> int:
        n_layer = self.settings["block_count"]
        assert isinstance(n_layer, int)
        return n_layer

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write the small model; the same sketch gives the same bytes."""
        weights = {name: _weights(_part(name), kind, shape) for name, kind, shape in self.tensors}
        write_model(path, self.architecture, self.settings, weights)


def state_sketch(header: Header) -> StateSketch:
    """The sketch of a model that has states.

    It has the first blocks up to where there is one of each kind, heads and states of the same sizes, and fewer of
    them. Raises ModelError for tensors whose shape is not known to depend on the header's numbers.
    """
    large, tensors = _widths(header), _first_blocks(header)
    for scale in range(_MOST_SCALE, 0, -1):
        small = _scaled(large, scale, is_first="ssm_x" in {_part(t.name) for t in tensors})
        made = small and tuple((t.name, t.type, _reshaped(t, large, small, header)) for t in tensors)
        if small and made and all(shape[0] % block_size(kind) == 0 for _, kind, shape in made):
            return StateSketch(header.architecture, _settings(header, small, tensors), made)
    raise ModelError(f"{header.path} has rows that are no whole number of its types' blocks")


def _widths(header: Header) -> Widths:
    n_embd, heads, heads_kv, ff = header.number("embedding_length"), *(_most(header, key) for key in _LAYERED)
    size = n_embd // heads if heads else 0
    return Widths(
        embd=n_embd,
        vocab=header.n_vocab,
        heads=heads,
        heads_kv=heads_kv or heads,
        head=header.number("attention.key_length", size),
        value=header.number("attention.value_length", size),
        ff=ff,
        ff_expert=header.number("expert_feed_forward_length", ff),
        ff_shared=header.number("expert_shared_feed_forward_length", ff),
        experts=header.number("expert_count"),
        inner=header.number("ssm.inner_size"),
        state=header.number("ssm.state_size"),
        ranks=header.number("ssm.time_step_rank"),
        groups=header.number("ssm.group_count"),
        conv=header.number("ssm.conv_kernel") or header.number("shortconv.l_cache"),
    )


def _most(header: Header, key: str) -> int:
    """A number, or the largest of those that layers have."""
    return max(read_integers(header, key), default=0) or header.number(key)


def _first_blocks(header: Header) -> list[Tensor]:
    """Tensors of as many blocks as it takes to have all kinds of them, and those that no block has."""
    blocks: dict[int, list[Tensor]] = {}
    for tensor in header.tensors:
        if (block := block_of(tensor)) is not None and block not in ahead_blocks(header):
            blocks.setdefault(block, []).append(tensor)
    kinds = {block: frozenset(_part(t.name) for t in tensors) for block, tensors in blocks.items()}
    last = max(min(block for block in kinds if kinds[block] == kind) for kind in set(kinds.values()))
    ends = [t for t in header.tensors if block_of(t) is None and _part(t.name) not in _LEFT_OUT]
    return ends + [t for block in range(last + 1) for t in blocks.get(block, ())]


def _scaled(large: Widths, scale: int, *, is_first: bool) -> Widths | None:
    """Fewer heads, so many times; None where that does not come out even. The first Mamba has none."""
    tied = large.embd in (large.heads * large.head, large.inner, large.inner // 2)
    counts = (large.inner, large.heads, 0 if is_first else large.ranks, large.embd if tied else 0)
    if any(n % scale for n in counts) or (tied and scale > max(large.embd // UNIT, 1)):
        return None
    small = replace(
        large,
        embd=large.embd // scale if tied else short(large.embd, 2 * UNIT),
        vocab=N_VOCAB,
        heads=large.heads // scale,
        heads_kv=large.heads_kv // gcd(large.heads_kv, scale),
        ff=short(large.ff, 2 * UNIT),
        ff_expert=short(large.ff_expert, 2 * UNIT),
        ff_shared=short(large.ff_shared, 2 * UNIT),
        experts=min(large.experts, MOST_EXPERTS + large.experts % MOST_EXPERTS),
        inner=large.inner // scale,
        ranks=large.ranks if is_first else large.ranks // scale,
        groups=large.groups // gcd(large.groups, scale),
    )
    even = small.heads % max(small.heads_kv, 1) == 0 and small.ranks % max(small.groups, 1) == 0
    return small if even or is_first else None


def _reshaped(tensor: Tensor, large: Widths, small: Widths, header: Header) -> tuple[int, ...]:
    """The shape that a tensor has in the small model."""
    for names, shape in _SHAPES:
        if _part(tensor.name) in names.split() and _padded(shape(large)) == tensor.shape:
            return shape(small)
    raise ModelError(f"{header.path} has a tensor {tensor.name!r} of a shape that is not known")


def _padded(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, *[1] * (4 - len(shape)))


def _part(name: str) -> str:
    """A tensor's name without its block's number, such as ``ssm_in``."""
    return _BLOCK.sub("", name).removesuffix(".weight").removesuffix(".bias")


def _settings(header: Header, small: Widths, tensors: list[Tensor]) -> dict[str, Value]:
    n_blocks, start = 1 + max(block_of(t) or 0 for t in tensors), f"{header.architecture}."
    numbers = {name.removeprefix(start): v for name, v in header.metadata.items() if name.startswith(start)}
    lists = dict(_lists(header, n_blocks))
    of_layers = dict(zip(_LAYERED, (small.heads, small.heads_kv, small.ff), strict=True))
    lists |= {key: [value and of_layers[key] for value in lists[key]] for key in _LAYERED if key in lists}
    replaced: dict[str, Value] = {
        **of_layers,
        "block_count": n_blocks,
        "embedding_length": small.embd,
        "vocab_size": small.vocab,
        "attention.key_length": small.head,
        "attention.value_length": small.value,
        "expert_feed_forward_length": small.ff_expert,
        "expert_shared_feed_forward_length": small.ff_shared,
        "expert_count": small.experts,
        "expert_used_count": min(header.number("expert_used_count"), MOST_USED),
        "ssm.inner_size": small.inner,
        "ssm.time_step_rank": small.ranks,
        "ssm.group_count": small.groups,
        "nextn_predict_layers": 0,
    }
    known = {key: value for key, value in replaced.items() if key in numbers}
    sizes = {key: replaced[key] for key in ("attention.key_length", "attention.value_length") if small.heads}
    return {**numbers, "vocab_size": small.vocab, **sizes, **known, **lists}


def _lists(header: Header, n_blocks: int) -> Iterator[tuple[str, list[int]]]:
    """Arrays of the metadata; those that have a number for each layer are cut to the first ones."""
    start, n_layers = f"{header.architecture}.", header.number("block_count")
    for name in sorted(header.arrays):
        if name.startswith(start):
            values = read_integers(header, key := name.removeprefix(start))
            if not values:
                raise ModelError(f"{header.path} has {name}, which is no list of numbers")
            yield key, values[:n_blocks] if len(values) == n_layers else values


def _weights(part: str, kind: int, shape: tuple[int, ...]) -> Weights:
    if "norm" in part:
        return Weights(kind, shape, np.ones(shape, np.float32).tobytes())
    if part != "ssm_a":
        return random_weights(kind, *shape)
    decays = -np.abs(np.random.default_rng(len(shape)).standard_normal(shape, np.float32))  # else states would explode
    return Weights(F32, shape, decays.tobytes())


# By what tensors are called; where several are called alike, the shape that the large model's has tells.
_SHAPES: tuple[tuple[str, Callable[[Widths], tuple[int, ...]]], ...] = (
    ("token_embd output", lambda w: (w.embd, w.vocab)),
    ("output_norm token_embd_norm attn_norm ffn_norm post_attention_norm attn_output ffn_down", lambda w: (w.embd,)),
    ("attn_q_norm attn_k_norm", lambda w: (w.head,)),
    ("attn_q", lambda w: (w.embd, w.heads * w.head)),
    ("attn_q", lambda w: (w.embd, 2 * w.heads * w.head)),  # with a gate
    ("attn_k", lambda w: (w.embd, w.heads_kv * w.head)),
    ("attn_v", lambda w: (w.embd, w.heads_kv * w.value)),
    ("attn_output", lambda w: (w.heads * w.value, w.embd)),
    ("attn_gate", lambda w: (w.embd, w.inner)),
    ("attn_qkv", lambda w: (w.embd, w.both + w.inner)),
    ("ffn_gate ffn_up", lambda w: (w.embd, w.ff)),
    ("ffn_up", lambda w: (w.ff,)),
    ("ffn_down", lambda w: (w.ff, w.embd)),
    ("ffn_gate_inp", lambda w: (w.embd, w.experts)),
    ("exp_probs_b", lambda w: (w.experts,)),
    ("ffn_gate_exps ffn_up_exps", lambda w: (w.embd, w.ff_expert, w.experts)),
    ("ffn_gate_up_exps", lambda w: (w.embd, 2 * w.ff_expert, w.experts)),
    ("ffn_down_exps", lambda w: (w.ff_expert, w.embd, w.experts)),
    ("ffn_gate_inp_shexp", lambda w: (w.embd,)),
    ("ffn_gate_shexp ffn_up_shexp", lambda w: (w.embd, w.ff_shared)),
    ("ffn_down_shexp", lambda w: (w.ff_shared, w.embd)),
    ("shortconv.conv", lambda w: (w.conv, w.embd)),
    ("shortconv.in_proj", lambda w: (w.embd, 3 * w.embd)),
    ("shortconv.out_proj", lambda w: (w.embd, w.embd)),
    ("ssm_in", lambda w: (w.embd, 2 * w.inner + w.both + w.ranks)),
    ("ssm_in", lambda w: (w.embd, 2 * w.inner + w.both)),
    ("ssm_conv1d", lambda w: (w.conv, w.inner + w.both)),
    ("ssm_conv1d", lambda w: (w.inner + w.both,)),
    ("ssm_x", lambda w: (w.inner, w.ranks + 2 * w.state)),
    ("ssm_dt", lambda w: (w.ranks, w.inner)),
    ("ssm_dt ssm_a ssm_d", lambda w: (w.ranks,)),
    ("ssm_dt ssm_d", lambda w: (w.inner,)),
    ("ssm_a ssm_d", lambda w: (1, w.ranks)),
    ("ssm_a", lambda w: (w.state, w.inner)),
    ("ssm_alpha ssm_beta", lambda w: (w.embd, w.ranks)),
    ("ssm_ba", lambda w: (w.embd, 2 * w.ranks)),
    ("ssm_norm", lambda w: (w.state,)),
    ("ssm_norm", lambda w: (w.inner // max(w.groups, 1), w.groups)),
    ("ssm_out", lambda w: (w.inner, w.embd)),
)
