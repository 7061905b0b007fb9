"""Weights that llama.cpp rearranges for its fastest kernels, in anonymous memory of their own."""

import ctypes
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from cadcpp.gguf.ggml_base import block_size
from cadcpp.gguf.header import Header, Tensor
from cadcpp.gguf.sketch import F32
from cadcpp.native.lib import Signatures, declared
from cadcpp.native.tensor import TensorStruct, new_tensors

# By name, since some virtual machines announce the units that another such type, AMX, needs without having them.
_NAME = b"CPU_REPACK"
_CPU, _N_ROWS = 0, 4
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_pointer = ctypes.c_void_p
_SIGNATURES: Signatures = {
    "ggml_backend_cpu_buffer_type": (_pointer, ()),
    "ggml_backend_dev_by_type": (_pointer, (ctypes.c_int,)),
    "ggml_backend_dev_backend_reg": (_pointer, (_pointer,)),
    "ggml_backend_reg_get_proc_address": (_pointer, (_pointer, ctypes.c_char_p)),
    "ggml_backend_buft_name": (ctypes.c_char_p, (_pointer,)),
    "ggml_backend_buft_alloc_buffer": (_pointer, (_pointer, ctypes.c_size_t)),
    "ggml_backend_buffer_free": (None, (_pointer,)),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, (_pointer, _pointer)),
}
_I32 = 26


class _Override(ctypes.Structure):
    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", _pointer))


class Overrides:
    """llama.cpp's list of where tensors go, for a model's parameters.

    Those of ``names`` are repacked, and those that a pattern of ``plain`` fits stay as they come on this machine.
    """

    def __init__(self, names: Iterable[str], plain: Iterable[str] = ()) -> None:
        places = [(pattern, _buffer_type()) for pattern in _patterns(names)]
        places += [(pattern, _library().ggml_backend_cpu_buffer_type()) for pattern in plain]
        self._array = (_Override * (len(places) + 1))()
        for slot, (pattern, buffer_type) in zip(self._array, places, strict=False):
            slot.pattern, slot.buffer_type = pattern.encode(), buffer_type

    @property
    def address(self) -> int:
        return ctypes.addressof(self._array)


def repackable(header: Header) -> list[str]:
    """Names of the tensors that this machine has other kernels for when they are repacked."""
    return [
        t.name for t in header.tensors if _is_matrix(t) and has_kernels(t.type, t.shape[: 3 if t.shape[2] > 1 else 2])
    ]


def _is_matrix(tensor: Tensor) -> bool:
    """Whether a pass multiplies with all of it; of embeddings it looks rows up, which repacked ones have none of."""
    return tensor.shape[1] > 1 and tensor.name.endswith(".weight") and "_embd" not in tensor.name


def _patterns(names: Iterable[str]) -> list[str]:
    """Regular expressions for names, one for each part of a block."""
    blocks, patterns = defaultdict[str, list[str]](list), []
    for name in names:
        if match := _BLOCK.fullmatch(name):
            blocks[match[2]].append(match[1])
        else:
            patterns.append(f"^{re.escape(name)}$")
    return patterns + [rf"^blk\.({'|'.join(numbers)})\.{re.escape(part)}$" for part, numbers in blocks.items()]


@cache
def has_kernels(kind: int, shape: tuple[int, ...]) -> bool:
    """Whether this machine has kernels for repacked weights of a ggml type and a shape, the row length first."""
    block = block_size(kind)
    if _buffer_type() is None or block == 0 or shape[0] % block:
        return False
    library = _library()
    with new_tensors() as new, _empty_buffer() as buffer:
        weights = new(kind, *shape)
        TensorStruct.from_address(weights).buffer = buffer
        context = new.context
        if len(shape) > 2:
            rows, ids = new(F32, shape[0], 1, _N_ROWS), new(_I32, 1, _N_ROWS)
            product = library.ggml_mul_mat_id(context, weights, rows, ids)
        else:
            product = library.ggml_mul_mat(context, weights, new(F32, shape[0], _N_ROWS))
        return bool(library.ggml_backend_dev_supports_op(_cpu(), product))


@contextmanager
def _empty_buffer() -> Iterator[int]:
    buffer = _library().ggml_backend_buft_alloc_buffer(_buffer_type(), 0)
    try:
        yield buffer
    finally:
        _library().ggml_backend_buffer_free(buffer)


@cache
def _library() -> Any:
    return declared(_SIGNATURES)


def _cpu() -> int:
    return int(_library().ggml_backend_dev_by_type(_CPU))


@cache
def _buffer_type() -> int | None:
    """ggml's type of buffer for repacked weights; None where it was built without."""
    library = _library()
    registry = library.ggml_backend_dev_backend_reg(_cpu())
    address = library.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
    if not address:
        return None
    types = ctypes.CFUNCTYPE(ctypes.POINTER(_pointer), _pointer)(address)(_cpu())
    for kind in types:
        if kind is None:
            return None
        if library.ggml_backend_buft_name(kind) == _NAME:
            return int(kind)
    return None
