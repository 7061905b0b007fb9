"""Leave out the neurons that a model computes for nothing: those at the end of every layer that meet only zeros."""

from functools import partial
from pathlib import Path
from typing import Any

from cadcpp.models.edit.rewrite import NewTensor, open_gguf, rewrite, stored_shape
from cadcpp.util.files import new_file

_STEP = 256  # the block of the K-quants
_DOWN, _UPS = ".ffn_down.weight", (".ffn_gate.weight", ".ffn_up.weight")


def narrow(src: Path, dst: Path) -> bool:
    """Write ``src`` without its idle neurons to ``dst``; False, with nothing written, if it has none.

    Models are not trained to have any. Widened ones have (see ``widen``), and their drafts need not.
    """
    reader = open_gguf(src)
    key = f"{reader.get_field('general.architecture').contents()}.feed_forward_length"
    field = reader.get_field(key)
    downs = [tensor for tensor in reader.tensors if tensor.name.endswith(_DOWN)]
    n_ff = field.contents() if field else None
    if not downs or not isinstance(n_ff, int) or any(int(tensor.shape[0]) != n_ff for tensor in downs):
        return False
    width = -(-max(_used(tensor) for tensor in downs) // _STEP) * _STEP
    if width >= n_ff:
        return False
    tensors = [NewTensor(t, t.name, _cut_shape(t, width, n_ff), partial(_cut, t, width, n_ff)) for t in reader.tensors]
    with new_file(dst) as part:
        rewrite(reader, part, {key: width}, tensors, lambda fraction: None)
    return True


def _used(down: Any) -> int:
    """How many leading neurons there are before the rest meet only zeros, in whole blocks of the weights' type."""
    import gguf
    import numpy as np

    block, n_bytes = gguf.GGML_QUANT_SIZES[down.tensor_type]
    n_ff, rows = int(down.shape[0]), down.data.view(np.uint8).reshape(int(down.shape[1]), -1)
    if rows[:, -n_bytes:].any():  # as in nearly every model: the rest need not be read
        return n_ff
    used = rows.reshape(len(rows), -1, n_bytes).any(axis=(0, 2))
    return int(np.flatnonzero(used)[-1] + 1) * block if used.any() else 0


def _cut_shape(tensor: Any, width: int, n_ff: int) -> tuple[int, ...]:
    shape = stored_shape(tensor)
    if tensor.name.endswith(_UPS):
        return (width, shape[1])
    return (shape[0], shape[1] * width // n_ff) if tensor.name.endswith(_DOWN) else shape


def _cut(tensor: Any, width: int, n_ff: int) -> Any:
    import numpy as np

    if not tensor.name.endswith((*_UPS, _DOWN)):
        return tensor.data
    rows, columns = _cut_shape(tensor, width, n_ff)
    return np.ascontiguousarray(tensor.data[:rows, :columns])
