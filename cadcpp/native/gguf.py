"""A GGUF file's header, read by ggml's own reader: metadata and where each tensor lies."""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadcpp.errors import ModelError
from cadcpp.native.lib import last_error, load_ggml_base

MAGIC = b"GGUF"


class _InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


def _declare(lib: Any, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(lib, f"gguf_{name}")
    function.restype, function.argtypes = result, arguments
    return function


_lib = load_ggml_base()
_ptr, _i64, _size, _str = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t, ctypes.c_char_p
_open = _declare(_lib, "init_from_file", _ptr, _str, _InitParams)
_free = _declare(_lib, "free", None, _ptr)
_n_kv = _declare(_lib, "get_n_kv", _i64, _ptr)
_key = _declare(_lib, "get_key", _str, _ptr, _i64)
_kv_type = _declare(_lib, "get_kv_type", ctypes.c_int, _ptr, _i64)
_find_key = _declare(_lib, "find_key", _i64, _ptr, _str)
_data_offset = _declare(_lib, "get_data_offset", _size, _ptr)
_n_tensors = _declare(_lib, "get_n_tensors", _i64, _ptr)
_tensor_name = _declare(_lib, "get_tensor_name", _str, _ptr, _i64)
_tensor_offset = _declare(_lib, "get_tensor_offset", _size, _ptr, _i64)
_tensor_size = _declare(_lib, "get_tensor_size", _size, _ptr, _i64)
_tensor_type = _declare(_lib, "get_tensor_type", ctypes.c_int, _ptr, _i64)

# One reader per value type; asking for another type than the key has would abort the process.
_READERS: dict[int, Callable[..., Any]] = {
    code: _declare(_lib, f"get_val_{name}", result, _ptr, _i64)
    for code, name, result in [
        (0, "u8", ctypes.c_uint8),
        (1, "i8", ctypes.c_int8),
        (2, "u16", ctypes.c_uint16),
        (3, "i16", ctypes.c_int16),
        (4, "u32", ctypes.c_uint32),
        (5, "i32", ctypes.c_int32),
        (6, "f32", ctypes.c_float),
        (7, "bool", ctypes.c_bool),
        (8, "str", ctypes.c_char_p),
        (10, "u64", ctypes.c_uint64),
        (11, "i64", ctypes.c_int64),
        (12, "f64", ctypes.c_double),
    ]
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file: its bytes are ``[offset, offset + n_bytes)`` from the file's start."""

    name: str
    type: int  # ggml_type
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """Scalar metadata and the tensor table of one GGUF file."""

    path: Path
    n_bytes: int  # of the whole file
    metadata: dict[str, Any]  # arrays are left out: a vocabulary has 10^5 entries
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def get(self, key: str, default: Any = None) -> Any:
        """``metadata["<architecture>.<key>"]``, or the default."""
        return self.metadata.get(f"{self.architecture}.{key}", default)


def read_header(path: Path) -> Header:
    """Read and check a GGUF header. Raises ModelError for anything that llama.cpp must not be handed."""
    _check_magic(path)
    handle = _open(os.fsencode(path), _InitParams(True, None))
    if not handle:
        raise ModelError(f"{path} is not a readable GGUF model ({last_error('damaged header')})")
    try:
        header = Header(path, path.stat().st_size, _metadata(handle), _tensors(handle))
    finally:
        _free(handle)
    _check_whole(header)
    return header


def _check_magic(path: Path) -> None:
    try:
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
    values = {}
    for i in range(_n_kv(handle)):
        reader = _READERS.get(_kv_type(handle, i))
        if reader is not None:
            value = reader(handle, i)
            values[_key(handle, i).decode("utf-8", "replace")] = (
                value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            )
    return values


def _tensors(handle: int) -> tuple[Tensor, ...]:
    start = _data_offset(handle)
    return tuple(
        Tensor(
            _tensor_name(handle, i).decode("utf-8", "replace"),
            _tensor_type(handle, i),
            start + _tensor_offset(handle, i),
            _tensor_size(handle, i),
        )
        for i in range(_n_tensors(handle))
    )


def _check_whole(header: Header) -> None:
    end = max((t.offset + t.n_bytes for t in header.tensors), default=0)
    if not header.tensors:
        raise ModelError(f"{header.path} holds no tensors: it is a vocabulary or a stub, not a model")
    if end > header.n_bytes:
        raise ModelError(f"{header.path} is cut short: {header.n_bytes} bytes of {end}; download or copy it again")
