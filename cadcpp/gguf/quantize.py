"""ggml's own quantization."""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cadcpp.errors import ModelError
from cadcpp.gguf.ggml_base import block_size, ggml_base


def quantize(values: NDArray[np.float32], kind: int) -> NDArray[np.uint8]:
    """Rows [n, length] as weights of a ggml type, [n, bytes].

    Raises ModelError for a type that ggml cannot make, and a length that is no multiple of its block.
    """
    n, length = values.shape
    if kind not in _TYPES or length % block_size(kind):
        raise ModelError(f"rows of {length} weights cannot be of type {kind}")
    library = ggml_base()
    row_size, chunk = library.ggml_row_size, library.ggml_quantize_chunk
    row_size.restype, row_size.argtypes = ctypes.c_size_t, (ctypes.c_int, ctypes.c_int64)
    chunk.restype, chunk.argtypes = ctypes.c_size_t, _CHUNK
    rows = np.zeros((n, row_size(kind, length)), np.uint8)
    alike = np.ones(length, np.float32)  # some types want to know how much each weight matters
    chunk(kind, np.ascontiguousarray(values).ctypes.data, rows.ctypes.data, 0, n, length, alike.ctypes.data)
    return rows


_TYPES = {
    *range(4),
    6,
    7,
    8,
    *range(10, 15),
    *range(16, 24),
    29,
    30,
    34,
    35,
    *range(39, 43),
}  # of ggml; others end the process
_CHUNK: tuple[Any, ...] = (ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p)
