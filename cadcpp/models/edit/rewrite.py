"""Write a GGUF anew, with some of its metadata and tensors changed."""

import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadcpp.errors import ToolError
from cadcpp.gguf.header import DAMAGED, read_header
from cadcpp.gguf.validate import check_generative
from cadcpp.util.extras import require

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to write: ``old`` under another name, in another shape, or both."""

    old: Any  # as the gguf package read it
    name: str
    shape: tuple[int, ...]  # as stored: rows first, and the last axis in bytes where blocks are opaque
    data: Callable[[], Any]  # an array of that shape, made when it is written


@dataclass(frozen=True, slots=True)
class Kind:
    """Another architecture for a model that is written, and counts that it has in addition or of its own."""

    architecture: str
    counts: Mapping[str, int | Sequence[int]]


def require_gguf() -> None:
    """Raise ToolError if models cannot be made here; for what does long work before it makes one."""
    require("models", "making models", "gguf")


def open_gguf(src: Path) -> Any:
    """The gguf package's reader of a language model's file."""
    require_gguf()
    import gguf

    check_generative(read_header(src))
    with _understood(src):
        return gguf.GGUFReader(src)


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """What the gguf package stumbles over becomes one line with a remedy."""
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        reason = reprlib.repr(str(error))
        raise ToolError(f"cannot copy {path} as GGUF: {reason}; {DAMAGED}") from error


def stored_shape(tensor: Any) -> tuple[int, ...]:
    """The shape of a tensor that was read, as it is stored."""
    return tuple(int(length) for length in tensor.data.shape)


def rewrite(
    reader: Any,
    part: Path,
    changed: Mapping[str, object],
    tensors: Sequence[NewTensor],
    progress: Progress,
    kind: Kind | None = None,
) -> None:
    """Write ``tensors`` and the metadata of ``reader``, some of it ``changed``, to ``part``.

    The model becomes one of another ``kind``, if one is given; what is changed has the names of that.
    """
    import gguf

    old = reader.get_field("general.architecture").contents()
    kind = kind or Kind(old, {})
    writer = gguf.GGUFWriter(part, kind.architecture)
    try:
        writer.data_alignment = reader.alignment
        with _understood(part):
            _copy_metadata(reader, writer, changed, old, kind)
            _add_counts(writer, kind)
            for tensor in tensors:
                _announce(writer, tensor)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        for n_done, tensor in enumerate(tensors, start=1):
            writer.write_tensor_data(tensor.data())
            progress(n_done / len(tensors))
    finally:
        writer.close()


def _copy_metadata(reader: Any, writer: Any, changed: Mapping[str, object], old: str, kind: Kind) -> None:
    replaced = {f"{kind.architecture}.{name}" for name in kind.counts}
    for key, field in reader.fields.items():
        # the writer adds these itself
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        if key.startswith(f"{old}."):
            key = kind.architecture + key.removeprefix(old)
        if key not in replaced:
            writer.add_key_value(key, changed.get(key, field.contents()), field.types[0], sub_type=field.types[-1])


def _add_counts(writer: Any, kind: Kind) -> None:
    for name, value in kind.counts.items():
        key = f"{kind.architecture}.{name}"
        if isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_array(key, value)


def _announce(writer: Any, tensor: NewTensor) -> None:
    old, shape = tensor.old, tensor.shape
    n_bytes = math.prod(shape) * old.data.itemsize
    writer.add_tensor_info(tensor.name, shape, old.data.dtype, n_bytes, raw_dtype=old.tensor_type)
