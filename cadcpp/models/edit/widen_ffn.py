"""Make a model larger without changing what it computes.

Rows are appended to ``ffn_gate`` and ``ffn_up`` (copies of the rows already there) and as many zero columns to
``ffn_down``: every added neuron is computed, then multiplied by zero. Bytes and work are those of the larger
model, the function is the old one. Weights are copied as they are stored, so nothing is rounded again.
"""

from functools import partial
from pathlib import Path
from typing import Any

from cadcpp.errors import ConfigError, ToolError
from cadcpp.models.edit.rewrite import NewTensor, Progress, open_gguf, rewrite, stored_shape
from cadcpp.util.files import new_file

N_FF_STEP = 256  # the block of the K-quants, the largest block of all types

_GROWS_IN_ROWS = (".ffn_gate.weight", ".ffn_up.weight")
_GROWS_IN_COLUMNS = (".ffn_down.weight",)
_GROWS = _GROWS_IN_ROWS + _GROWS_IN_COLUMNS


class Widenable:
    """A model file with gated feed-forward layers, open for reading."""

    def __init__(self, src: Path) -> None:
        self._reader = open_gguf(src)
        growing = [tensor for tensor in self._reader.tensors if tensor.name.endswith(_GROWS)]
        field = self._reader.get_field(_n_ff_key(self._reader))
        self.n_ff = field.contents() if field else 0
        if not growing or not all(_is_as_wide(tensor, self.n_ff) for tensor in growing):
            raise ToolError(f"{src} has no gated feed-forward layers to widen; take a dense llama-like model")
        self.file_bytes = src.stat().st_size
        self._bytes_per_ff = sum(int(tensor.n_bytes) for tensor in growing) // self.n_ff

    def file_bytes_at(self, n_ff: int) -> int:
        """The file's size at another width, up to a few bytes of metadata."""
        return self.file_bytes + (n_ff - self.n_ff) * self._bytes_per_ff

    def n_ff_within(self, size_bytes: int) -> int:
        """The largest width, in steps of 256, whose file is no larger than ``size_bytes``."""
        n_steps = (size_bytes - self.file_bytes) // (self._bytes_per_ff * N_FF_STEP)
        return self.n_ff + n_steps * N_FF_STEP

    def write(self, dst: Path, n_ff: int, *, progress: Progress = lambda fraction: None) -> None:
        """Write the model at width ``n_ff``; ``dst`` appears whole or not at all."""
        if n_ff < self.n_ff or (n_ff - self.n_ff) % N_FF_STEP:
            raise ConfigError(f"n_ff must be {self.n_ff} plus a multiple of {N_FF_STEP}, got {n_ff}")
        with new_file(dst) as part:
            _write(self._reader, part, self.n_ff, n_ff, progress)


def widen(src: Path, dst: Path, n_ff: int, *, progress: Progress = lambda fraction: None) -> None:
    """Write ``src`` to ``dst`` with ``n_ff`` feed-forward neurons a layer; ``dst`` appears whole or not at all."""
    Widenable(src).write(dst, n_ff, progress=progress)


def _is_as_wide(tensor: Any, n_ff: int) -> bool:
    shape = tensor.shape.tolist()
    return len(shape) == 2 and shape[0 if tensor.name.endswith(_GROWS_IN_COLUMNS) else 1] == n_ff


def _n_ff_key(reader: Any) -> str:
    return f"{reader.get_field('general.architecture').contents()}.feed_forward_length"


def _write(reader: Any, part: Path, old_ff: int, n_ff: int, progress: Progress) -> None:
    tensors = [
        NewTensor(tensor, tensor.name, _grown_shape(tensor, old_ff, n_ff), partial(_grown, tensor, old_ff, n_ff))
        for tensor in reader.tensors
    ]
    changed: dict[str, object] = {_n_ff_key(reader): n_ff}
    if n_ff != old_ff:
        name = reader.get_field("general.name")
        old_name = name.contents() if name else "model"
        changed["general.name"] = f"{old_name}, widened from n_ff {old_ff} to {n_ff} (same function, real speed)"
    rewrite(reader, part, changed, tensors, progress)


def _grown_shape(tensor: Any, old_ff: int, n_ff: int) -> tuple[int, ...]:
    shape = stored_shape(tensor)
    if tensor.name.endswith(_GROWS_IN_ROWS):
        return (n_ff, shape[1])
    if tensor.name.endswith(_GROWS_IN_COLUMNS):
        return (shape[0], shape[1] * n_ff // old_ff)
    return shape


def _grown(tensor: Any, old_ff: int, n_ff: int) -> Any:
    import numpy as np

    shape = _grown_shape(tensor, old_ff, n_ff)
    if tensor.name.endswith(_GROWS_IN_COLUMNS):
        # a block of zero bytes is a block of zero weights in every type of ggml
        data = np.zeros(shape, dtype=tensor.data.dtype)
        data[:, : tensor.data.shape[1]] = tensor.data
        return data
    # numpy's resize repeats the rows from the first on
    return np.resize(tensor.data, shape)
