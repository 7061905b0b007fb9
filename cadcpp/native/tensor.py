"""ggml's tensors: as they lie in memory, as a callback is given them, and new ones without data."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cadcpp.gguf.sketch import F32
from cadcpp.native.lib import Signatures, declared

_pointer, _size, _long = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64


class _InitParams(ctypes.Structure):
    _fields_ = (("size", _size), ("buffer", _pointer), ("no_alloc", ctypes.c_bool))


_SIGNATURES: Signatures = {
    "ggml_get_name": (ctypes.c_char_p, (_pointer,)),
    "ggml_op_desc": (ctypes.c_char_p, (_pointer,)),
    "ggml_nbytes": (_size, (_pointer,)),
    "ggml_backend_tensor_get": (None, (_pointer, _pointer, _size, _size)),
    "ggml_init": (_pointer, (_InitParams,)),
    "ggml_new_tensor": (_pointer, (_pointer, ctypes.c_int, ctypes.c_int, ctypes.POINTER(_long))),
    "ggml_mul_mat": (_pointer, (_pointer, _pointer, _pointer)),
    "ggml_mul_mat_id": (_pointer, (_pointer, _pointer, _pointer, _pointer)),
    "ggml_free": (None, (_pointer,)),
}
_library = declared(_SIGNATURES)
tensor_name = _library.ggml_get_name


class TensorStruct(ctypes.Structure):
    """ggml's struct; `is_laid_out` says whether the library that is loaded has it so."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("buffer", _pointer),
        ("shape", _long * 4),
        ("strides", _size * 4),  # bytes
        ("operation", ctypes.c_int),
        ("parameters", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("sources", _pointer * 10),
        ("view_source", _pointer),
        ("view_offset", _size),
        ("data", _pointer),
        ("name", ctypes.c_char * 64),
        ("extra", _pointer),
        ("padding", ctypes.c_char * 8),
    )


class New:
    """Makes tensors without data."""

    def __init__(self) -> None:
        self.context = _library.ggml_init(_InitParams(1 << 16, None, True))

    def __call__(self, kind: int, *shape: int) -> int:
        return int(_library.ggml_new_tensor(self.context, kind, len(shape), (_long * len(shape))(*shape)))


@contextmanager
def new_tensors() -> Iterator[New]:
    """Inside, tensors can be made; they are gone afterwards."""
    new = New()
    try:
        yield new
    finally:
        _library.ggml_free(new.context)


@cache
def is_laid_out() -> bool:
    """Whether the library has tensors as `TensorStruct` says: seen at a product of two that have no data."""
    with new_tensors() as new:
        weights, rows = new(F32, 5, 7), new(F32, 5, 3)
        product = _library.ggml_mul_mat(new.context, weights, rows)
        found = TensorStruct.from_address(product)
        return (
            (found.kind, list(found.shape), list(found.strides)) == (F32, [7, 3, 1, 1], [4, 28, 84, 84])
            and list(found.sources)[:3] == [weights, rows, None]
            and is_product(product)
        )


def is_product(tensor: int) -> bool:
    """Whether it is that of a matrix."""
    return bool(_library.ggml_op_desc(tensor) == b"MUL_MAT")


def read_tensor(tensor: int) -> NDArray[np.int32]:
    """The numbers of a contiguous int32 tensor, flat."""
    values = np.empty(_library.ggml_nbytes(tensor) // 4, np.int32)
    _library.ggml_backend_tensor_get(tensor, values.ctypes.data, 0, values.nbytes)
    return values
