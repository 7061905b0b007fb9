"""Leave out layers of a model: for a try, and for good."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cadcpp.gguf.blocks import ahead_blocks, state_blocks
from cadcpp.gguf.header import Header, read_header
from cadcpp.models.edit.rewrite import Kind, NewTensor, open_gguf, rewrite, stored_shape
from cadcpp.util.files import new_file

_BLOCK = re.compile(r"blk\.(\d+)\.(.*)")
_NOT_BY_LAYER = re.compile(r"tokenizer\.|[^.]+\.rope\.")  # arrays that may be as long as there are layers
_OUTPUTS = ("attn_output", "ffn_down", "ssm_out", "shortconv.out_proj")  # what a layer adds passes through these


@contextmanager
def silenced(header: Header, layer: int) -> Iterator[None]:
    """Inside, a layer of the file adds nothing: the weights of its outputs are zero, in the file itself."""
    path = header.path
    outputs = [t for t in header.tensors if t.name.startswith(f"blk.{layer}.") and any(o in t.name for o in _OUTPUTS)]
    with path.open("r+b") as file:
        saved = []
        for tensor in outputs:
            file.seek(tensor.offset)
            saved.append(file.read(tensor.n_bytes))
        try:
            _write(file, [(tensor.offset, bytes(tensor.n_bytes)) for tensor in outputs])
            yield
        finally:
            _write(file, [(tensor.offset, data) for tensor, data in zip(outputs, saved, strict=True)])


def _write(file: Any, pieces: list[tuple[int, bytes]]) -> None:
    for offset, data in pieces:
        file.seek(offset)
        file.write(data)
    file.flush()


def drop_layers(src: Path, dst: Path, layers: Collection[int]) -> None:
    """Write ``src`` without some of its layers to ``dst``, which appears whole or not at all.

    Blocks that predict further tokens, which nothing computes, are left out as well.
    """
    reader, header = open_gguf(src), read_header(src)
    architecture, n_layer = header.architecture, header.number("block_count")
    left_out = {*layers, *ahead_blocks(header)}
    kept = {layer: new for new, layer in enumerate(i for i in range(n_layer) if i not in left_out)}
    changed: dict[str, object] = {f"{architecture}.block_count": len(kept), f"{architecture}.nextn_predict_layers": 0}
    for name, field in reader.fields.items():
        values = field.contents()
        if isinstance(values, list) and len(values) == n_layer and not _NOT_BY_LAYER.match(name):
            changed[name] = [values[layer] for layer in kept]
    tensors = [
        NewTensor(tensor, name, stored_shape(tensor), partial(getattr, tensor, "data"))
        for tensor in reader.tensors
        if (name := _renamed(tensor.name, kept)) is not None
    ]
    with new_file(dst) as part:
        rewrite(reader, part, changed, tensors, lambda fraction: None, _kind(header, list(kept)))


def _kind(header: Header, kept: list[int]) -> Kind:
    """Which layers have a state is said one by one, where it was every so many of them."""
    states = state_blocks(header)
    by_number = {"attention.recurrent_layers": [int(layer in states) for layer in kept]}
    return Kind(header.architecture, by_number if header.number("full_attention_interval") else {})


def _renamed(name: str, kept: dict[int, int]) -> str | None:
    match = _BLOCK.fullmatch(name)
    if match is None:
        return name
    layer = int(match[1])
    return f"blk.{kept[layer]}.{match[2]}" if layer in kept else None
