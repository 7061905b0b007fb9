"""Make the rows of a model's weights as long as whole blocks of the K-quants, without changing what it computes.

Channels of zeros are added to the embedding, and as many attention heads as fill them, also of zeros. An RMS norm
w x / sqrt(S / m + e) over m channels, S being the sum of their squares, equals w' x / sqrt(S / n + e') over n with
w' = w sqrt(m / n) and e' = e m / n. Weights are copied as they are stored, so nothing but the norms is rounded again.
"""

import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cadcpp.errors import ToolError
from cadcpp.models.edit.rewrite import NewTensor, Progress, open_gguf, rewrite, stored_shape
from cadcpp.util.files import new_file

BLOCK = 256  # weights of the K-quants that share a scale: a row of another length gets another type

_NAME = re.compile(r"(?:blk\.\d+\.)?(\w+)\.weight")
_SIDES = {  # of every kind of tensor: what its rows give and what they take; a norm has no rows
    "token_embd": ("n_vocab", "n_embd"),
    "attn_q": ("n_embd", "n_embd"),
    "attn_k": ("n_embd_kv", "n_embd"),
    "attn_v": ("n_embd_kv", "n_embd"),
    "attn_output": ("n_embd", "n_embd"),
    "ffn_gate": ("n_ff", "n_embd"),
    "ffn_up": ("n_ff", "n_embd"),
    "ffn_down": ("n_embd", "n_ff"),
    "output": ("n_vocab", "n_embd"),
    "attn_norm": ("n_embd",),
    "ffn_norm": ("n_embd",),
    "output_norm": ("n_embd",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """A dense model of the llama architecture, whose heads together are as wide as its embedding."""

    n_vocab: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_size: int

    @property
    def n_embd(self) -> int:
        return self.n_head * self.head_size

    @property
    def n_embd_kv(self) -> int:
        return self.n_head_kv * self.head_size

    def padded(self) -> "_Shape":
        """The least shape with rows of whole blocks, and as many heads to a key and value head."""
        group = self.n_head // self.n_head_kv
        n_head_kv = _up(self.n_head_kv, BLOCK // math.gcd(BLOCK, group * self.head_size))
        return _Shape(
            n_vocab=self.n_vocab,
            n_ff=_up(self.n_ff, BLOCK),
            n_head=group * n_head_kv,
            n_head_kv=n_head_kv,
            head_size=self.head_size,
        )

    def of(self, name: str) -> list[int]:
        """The shape of a tensor, rows first; empty for one that such a model does not have."""
        match = _NAME.fullmatch(name)
        return [getattr(self, side) for side in _SIDES.get(match[1], ())] if match else []


def pad_rows(src: Path, dst: Path, *, progress: Progress = lambda fraction: None) -> None:
    """Write ``src`` to ``dst`` with rows that are multiples of 256; ``dst`` appears whole or not at all.

    Raises ToolError for what is no dense model of the llama architecture, without biases.
    """
    reader = open_gguf(src)
    old = _shape(reader, src)
    new = old.padded()
    tensors = [
        NewTensor(tensor, tensor.name, _stored(tensor, old, new), partial(_padded, tensor, old, new))
        for tensor in reader.tensors
    ]
    with new_file(dst) as part:
        rewrite(reader, part, _metadata(reader, old, new), tensors, progress)


def _shape(reader: Any, src: Path) -> _Shape:
    n_embd, n_ff, n_head, n_head_kv = (_number(reader, key) for key in _KEYS)
    embeddings = [tensor for tensor in reader.tensors if tensor.name == "token_embd.weight"]
    grouped = n_head_kv > 0 and n_head % n_head_kv == 0 and n_embd % n_head == 0
    if grouped and embeddings and reader.get_field(_EPSILON):
        n_vocab = int(embeddings[0].shape[-1])
        shape = _Shape(n_vocab=n_vocab, n_ff=n_ff, n_head=n_head, n_head_kv=n_head_kv, head_size=n_embd // n_head)
        if all(tensor.shape.tolist()[::-1] == shape.of(tensor.name) for tensor in reader.tensors):
            return shape
    raise ToolError(f"{src} has tensors that cannot be padded; take a dense model of the llama architecture")


_KEYS = ("embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv")
_EPSILON = "llama.attention.layer_norm_rms_epsilon"


def _number(reader: Any, key: str) -> int:
    """0 for what is missing, or a list of one for each layer."""
    field = reader.get_field(f"llama.{key}")
    value = field.contents() if field else 0
    return value if isinstance(value, int) else 0


def _metadata(reader: Any, old: _Shape, new: _Shape) -> dict[str, object]:
    values = (new.n_embd, new.n_ff, new.n_head, new.n_head_kv)
    changed: dict[str, object] = {f"llama.{key}": value for key, value in zip(_KEYS, values, strict=True)}
    changed[_EPSILON] = reader.get_field(_EPSILON).contents() * old.n_embd / new.n_embd
    if new != old:
        name = reader.get_field("general.name")
        padded = f"padded from {old.n_embd} channels and {old.n_head} heads to {new.n_embd} and {new.n_head}"
        changed["general.name"] = f"{name.contents() if name else 'model'}, {padded} (same function)"
    return changed


def _stored(tensor: Any, old: _Shape, new: _Shape) -> tuple[int, ...]:
    lengths = zip(stored_shape(tensor), old.of(tensor.name), new.of(tensor.name), strict=True)
    return tuple(stored * after // before for stored, before, after in lengths)


def _padded(tensor: Any, old: _Shape, new: _Shape) -> Any:
    import numpy as np

    # a block of zero bytes is a block of zero weights in every type of ggml
    data = np.zeros(_stored(tensor, old, new), dtype=tensor.data.dtype)
    data[tuple(slice(length) for length in tensor.data.shape)] = tensor.data
    return data if data.ndim > 1 else data * np.float32(math.sqrt(old.n_embd / new.n_embd))


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
