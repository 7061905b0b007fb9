"""Put blocks with a recurrent state between those of a model without changing what it computes.

The model becomes one of the lfm2 architecture: in front of each of its blocks stands a short convolution whose output
weights are zero, with a feed-forward layer of which the same is true. Bytes and work are those of such a hybrid, the
function is the old one, but for the last digits of attention. Those are from the norms of queries and keys that lfm2
has: they do next to nothing where epsilon is far above the mean square of what they see. So everything that is added
up between blocks is scaled up, which other norms undo, epsilon with it, and queries and keys are scaled down.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cadcpp.errors import ToolError
from cadcpp.models.edit.rewrite import Kind, NewTensor, Progress, open_gguf, rewrite, stored_shape
from cadcpp.util.files import new_file

L_CACHE = 3  # tokens that a convolution sees

_ARCHITECTURE = "lfm2"
_SUM = 2.0**13  # of what blocks add up; powers of two round nothing
_NORMED, _WEIGHT = 2.0**-4, 2.0**-4  # of what attention sees, and of the weights of its queries and keys
_SCALES = {
    "token_embd": _SUM,
    "attn_output": _SUM,
    "ffn_down": _SUM,
    "attn_norm": _NORMED,
    "attn_q": _WEIGHT,
    "attn_k": _WEIGHT,
    "attn_v": 1 / _NORMED,
}
_LARGEST = 65504  # of F16
_BLOCK = "attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_up ffn_down".split()


def add_states(src: Path, dst: Path, *, progress: Progress = lambda fraction: None) -> None:
    """Write ``src`` to ``dst`` as a hybrid of twice as many blocks; ``dst`` appears whole or not at all.

    Raises ToolError for what is no dense model of the llama architecture in F16 or F32, without biases.
    """
    reader = open_gguf(src)
    model = _Llama(reader, src)
    with new_file(dst) as part:
        rewrite(reader, part, model.metadata(), list(model.tensors()), progress, model.kind())


class _Llama:
    """The model that becomes a hybrid."""

    def __init__(self, reader: Any, src: Path) -> None:
        self._src, self._reader = src, reader
        self._by_name = {tensor.name.removesuffix(".weight"): tensor for tensor in reader.tensors}
        self.n_layer, self.n_embd, self.n_head = (
            self._number(key) for key in ("block_count", "embedding_length", "attention.head_count")
        )
        self.n_head_kv, self.epsilon = (
            self._number(key) for key in ("attention.head_count_kv", "attention.layer_norm_rms_epsilon")
        )
        known = {"token_embd", "output_norm", "output"} | {f"blk.{i}.{n}" for i in range(self.n_layer) for n in _BLOCK}
        floats = all(tensor.data.dtype.kind == "f" for tensor in reader.tensors)
        if not floats or known - {"output"} != self._by_name.keys() - {"output"}:
            raise ToolError(f"{src} cannot become a hybrid; take a dense model of the llama architecture in F16")

    def kind(self) -> Kind:
        heads = [0, self.n_head_kv] * self.n_layer
        counts = {"block_count": 2 * self.n_layer, "attention.head_count_kv": heads, "shortconv.l_cache": L_CACHE}
        return Kind(_ARCHITECTURE, counts)

    def metadata(self) -> dict[str, object]:
        name = self._reader.get_field("general.name")
        return {
            f"{_ARCHITECTURE}.attention.layer_norm_rms_epsilon": self._new_epsilon,
            "general.name": f"{name.contents() if name else 'model'}, with states that add nothing (same function)",
        }

    def tensors(self) -> Iterator[NewTensor]:
        by_name = self._by_name
        yield self._scaled("token_embd", by_name["token_embd"])
        for i in range(self.n_layer):
            yield from self._convolution(2 * i, i)
            yield from self._attention(2 * i + 1, i)
        tied = "output" not in by_name  # the output weights are the embeddings, scaled up
        yield self._new("token_embd_norm", by_name["output_norm"], partial(_times, 1 / _SUM if tied else 1.0))
        if not tied:
            yield self._new("output", by_name["output"], partial(_times, 1.0))

    @property
    def _new_epsilon(self) -> float:
        return float(self.epsilon * _SUM**2)

    def _attention(self, block: int, old: int) -> Iterator[NewTensor]:
        for name in _BLOCK:
            yield self._scaled(f"blk.{block}.{name}", self._by_name[f"blk.{old}.{name}"])
        size, undone = self.n_embd // self.n_head, math.sqrt(self._new_epsilon) / (_NORMED * _WEIGHT)
        for name in ("attn_q_norm", "attn_k_norm"):
            yield self._vector(f"blk.{block}.{name}", (size,), undone)

    def _convolution(self, block: int, old: int) -> Iterator[NewTensor]:
        def like(name: str, model: str, fill: Callable[[Any], Any], n: int = 1) -> NewTensor:
            return self._new(f"blk.{block}.{name}", self._by_name[f"blk.{old}.{model}"], fill, n)

        for name in ("attn_norm", "ffn_norm", "ffn_gate", "ffn_up"):
            yield like(name, name, partial(_times, 1.0))
        yield like("ffn_down", "ffn_down", partial(_times, 0.0))
        yield like("shortconv.in_proj", "attn_q", partial(_repeated, 3), 3)
        yield like("shortconv.out_proj", "attn_q", partial(_times, 0.0))
        yield self._vector(f"blk.{block}.shortconv.conv", (self.n_embd, L_CACHE), 1 / L_CACHE)

    def _scaled(self, name: str, old: Any) -> NewTensor:
        kind = name.rpartition(".")[2]
        fill = partial(_times, _SCALES.get(kind, 1.0))
        if kind in ("attn_q", "attn_k"):
            heads = self.n_head if kind == "attn_q" else self.n_head_kv
            return self._new(name, old, lambda data: fill(_halves(data, heads)))
        return self._new(name, old, fill)

    def _vector(self, name: str, shape: tuple[int, ...], value: float) -> NewTensor:
        norm = self._by_name["output_norm"]  # which is in F32
        return NewTensor(norm, f"{name}.weight", shape, lambda: _filled(norm, shape, value))

    def _new(self, name: str, old: Any, fill: Callable[[Any], Any], n: int = 1) -> NewTensor:
        rows, *rest = stored_shape(old)
        return NewTensor(old, f"{name}.weight", (n * rows, *rest), lambda: self._checked(old, fill(old.data)))

    def _checked(self, old: Any, data: Any) -> Any:
        if abs(data).max() > _LARGEST:
            raise ToolError(f"{self._src} cannot become a hybrid: weights of {old.name} are too large to be scaled")
        return data

    def _number(self, key: str) -> Any:
        field = self._reader.get_field(f"llama.{key}")
        value = field.contents() if field else None
        if not isinstance(value, int | float) or not value:
            raise ToolError(f"{self._src} cannot become a hybrid; take a dense model of the llama architecture in F16")
        return value


def _times(factor: float, data: Any) -> Any:
    import numpy as np

    with np.errstate(over="ignore"):  # what is infinite then is refused
        return (data.astype(np.float32) * np.float32(factor)).astype(data.dtype)


def _repeated(n: int, data: Any) -> Any:
    import numpy as np

    return np.concatenate([data] * n)


def _filled(like: Any, shape: tuple[int, ...], value: float) -> Any:
    import numpy as np

    return np.full(shape, value, dtype=like.data.dtype)


def _halves(data: Any, n_head: int) -> Any:
    """Rows of each head in another order: lfm2 turns the first half of a head with the second, llama neighbours."""
    rows, columns = data.shape
    return data.reshape(n_head, rows // n_head // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
