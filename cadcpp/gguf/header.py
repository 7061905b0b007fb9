"""A GGUF file's header, read by ggml's own reader: metadata and where each tensor lies."""

import ctypes
import re
import reprlib
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from cadcpp.errors import ModelError
from cadcpp.gguf import arrays
from cadcpp.gguf.ggml_base import last_error
from cadcpp.gguf.parser import InitParams, parser

T = TypeVar("T")

MAGIC = b"GGUF"
TOKEN_NORMAL, TOKEN_BYTE = 1, 6  # kinds of tokens that stand for text; others are control tokens, padding, ...
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
DAMAGED = "it is damaged, download or copy it again"
_MOST_TENSORS, _MOST_VALUES = 1 << 14, 1 << 12  # more than any model has; ggml compares every name with all others


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its bytes are ``[offset, offset + n_bytes)`` of the model's file number ``part``."""

    name: str
    type: int  # ggml_type
    offset: int
    n_bytes: int
    shape: tuple[int, ...] = ()  # ggml's order: the contiguous dimension first
    part: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a model; tensor data begins at ``data_offset``."""

    path: Path
    n_bytes: int
    data_offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """Scalar metadata and the tensor table of one model: one GGUF file, or several that were split."""

    path: Path
    n_bytes: int  # of all files
    metadata: dict[str, Any]  # arrays are left out: a vocabulary has 10^5 entries
    tensors: tuple[Tensor, ...]
    parts: tuple[Part, ...]
    arrays: frozenset[str] = frozenset()  # names of metadata that are left out
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # see `once`

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def n_vocab(self) -> int:
        """Tokens in the vocabulary, which is the longer side of the embeddings."""
        return next((t.shape[1] for t in self.tensors if t.name == "token_embd.weight"), 0)

    def get(self, key: str, default: Any = None) -> Any:
        """``metadata["<architecture>.<key>"]``, or the default."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def number(self, key: str, default: int = 0) -> int:
        """``get`` for a count. Raises ModelError for what is none."""
        value = self.get(key, default)
        if type(value) is not int or not 0 <= value < 2**31:
            raise ModelError(f"{self.path} says that its {key} is {reprlib.repr(value)}: {DAMAGED}")
        return value


def once(derive: Callable[[Header], T]) -> Callable[[Header], T]:
    """A function of a header that looks through all its tensors or its file, which is asked for many times."""

    @wraps(derive)
    def found(header: Header) -> T:
        if derive not in header.derived:
            header.derived[derive] = derive(header)
        return cast(T, header.derived[derive])

    return found


def read_header(path: Path) -> Header:
    """Read and check a model's header. Raises ModelError for anything that llama.cpp must not be handed."""
    first = _read_part(path, 0)
    others = [_read_part(other, i) for i, other in enumerate(_other_parts(first), start=1)]
    whole = [first, *others]
    return Header(
        path,
        sum(header.n_bytes for header in whole),
        first.metadata,
        tuple(tensor for header in whole for tensor in header.tensors),
        tuple(part for header in whole for part in header.parts),
        first.arrays,
    )


def read_vocabulary(header: Header) -> list[bytes]:
    """The text of every token, by id; empty if the file has none."""
    return arrays.read_strings(header.path, b"tokenizer.ggml.tokens")


def same_vocabulary(header: Header, other: Header) -> bool:
    """Whether two files spell all tokens alike, byte for byte."""
    return arrays.same_strings(header.path, other.path, b"tokenizer.ggml.tokens")


def read_integers(header: Header, key: str) -> list[int]:
    """``metadata["<architecture>.<key>"]`` that is an array, such as a number for each layer; empty if it is none."""
    name = f"{header.architecture}.{key}"
    return arrays.read_integers(header.path, name.encode()) if name in header.arrays else []


def read_token_types(header: Header) -> list[int]:
    """The kind of every token, by id, such as TOKEN_NORMAL; empty if the file does not tell."""
    return arrays.read_integers(header.path, b"tokenizer.ggml.token_type")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """ggml's handle of a file's header."""
    handle = _parse(path)
    if not handle:
        raise ModelError(f"{path} is not a readable GGUF model ({last_error('damaged header')})")
    try:
        yield handle
    finally:
        parser().free(handle)


def _parse(path: Path) -> int | None:
    with arrays.header_bytes(path) as data:
        n_bytes = len(data)
        _check_counts(path, data[:24])
        handle: int | None = parser().init_from_buffer(
            (ctypes.c_char * n_bytes).from_buffer(data), n_bytes, InitParams(True, None)
        )
        return handle


def _check_counts(path: Path, start: bytes) -> None:
    n_tensors, n_values = struct.unpack("<8xQQ", start.ljust(24, b"\0"))
    if n_tensors > _MOST_TENSORS or n_values > _MOST_VALUES:
        raise ModelError(f"{path} claims to have {n_tensors} tensors and {n_values} pieces of metadata: {DAMAGED}")


def _other_parts(first: Header) -> list[Path]:
    """Paths of the files after the first of a split model (`name-00001-of-0000N.gguf`)."""
    n_parts = first.metadata.get("split.count", 1)
    if not isinstance(n_parts, int) or n_parts <= 1:
        return []
    match = _SPLIT.fullmatch(first.path.name)
    if match is None or int(match[2]) != 1 or int(match[3]) != n_parts:
        raise ModelError(
            f"{first.path} is one of {n_parts} parts: name the first, ...-00001-of-{n_parts:05}.gguf, beside the others"
        )
    return [first.path.with_name(f"{match[1]}-{i:05}-of-{n_parts:05}.gguf") for i in range(2, n_parts + 1)]


def _read_part(path: Path, part: int) -> Header:
    _check_magic(path)
    with _opened(path) as handle:
        n_bytes = path.stat().st_size
        parts = (Part(path, n_bytes, parser().get_data_offset(handle)),)
        header = Header(path, n_bytes, _metadata(handle), _tensors(handle, part), parts, _array_names(handle))
    _check_whole(header)
    return header


def _check_magic(path: Path) -> None:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ModelError(f"{path} is no file: name one, since a model is read more than once")
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise ModelError(
            f"no model file at {path}: check the path, or make the demo pair with `cadcpp models demo`"
        ) from None
    except OSError as error:
        raise ModelError(f"cannot read model file {path}: {error.strerror}") from None
    if magic != MAGIC:
        raise ModelError(f"{path} is not a GGUF model: it starts with {magic!r}, not {MAGIC!r}")


def _metadata(handle: int) -> dict[str, Any]:
    gguf, values = parser(), {}
    for i in range(gguf.get_n_kv(handle)):
        reader = gguf.readers.get(gguf.get_kv_type(handle, i))
        if reader is not None:
            value = reader(handle, i)
            values[gguf.get_key(handle, i).decode("utf-8", "replace")] = (
                value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            )
    return values


def _array_names(handle: int) -> frozenset[str]:
    gguf = parser()
    names = (
        gguf.get_key(handle, i) for i in range(gguf.get_n_kv(handle)) if gguf.get_kv_type(handle, i) not in gguf.readers
    )
    return frozenset(name.decode("utf-8", "replace") for name in names)


def _tensors(handle: int, part: int) -> tuple[Tensor, ...]:
    gguf = parser()
    start = gguf.get_data_offset(handle)
    return tuple(
        Tensor(
            gguf.get_tensor_name(handle, i).decode("utf-8", "replace"),
            gguf.get_tensor_type(handle, i),
            start + gguf.get_tensor_offset(handle, i),
            gguf.get_tensor_size(handle, i),
            tuple(gguf.get_tensor_ne(handle, i)[:4]),
            part,
        )
        for i in range(gguf.get_n_tensors(handle))
    )


def _check_whole(header: Header) -> None:
    end = max((t.offset + t.n_bytes for t in header.tensors), default=0)
    if not header.tensors and not header.metadata.get("split.count"):
        raise ModelError(f"{header.path} holds no tensors: it is a vocabulary or a stub, not a model")
    if empty := next((t.name for t in header.tensors if t.n_bytes == 0), None):
        raise ModelError(f"{header.path} has a tensor of no size, {empty!r}: {DAMAGED}")
    if end > header.n_bytes:
        raise ModelError(f"{header.path} is cut short: {header.n_bytes} bytes of {end}; download or copy it again")


def rope_of(header: Header) -> tuple[float, float]:
    """Frequency base and scale of a model's rotary positions, as llama.cpp takes them from its file."""
    base = float(header.get("rope.freq_base", 0) or 10000.0)
    factor = float(header.get("rope.scaling.factor", 0) or header.get("rope.scale_linear", 0) or 1.0)
    return base, 1 / factor
