"""The functions of ggml's own GGUF parser, as ctypes calls them."""

import ctypes
import functools
from types import SimpleNamespace
from typing import Any

from cadcpp.gguf.ggml_base import ggml_base

_ptr, _i64, _size, _str, _int = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int


class InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


_FUNCTIONS: dict[str, tuple[Any, ...]] = {  # name -> what it returns, what it takes
    "init_from_buffer": (_ptr, _ptr, _size, InitParams),
    "free": (None, _ptr),
    "get_n_kv": (_i64, _ptr),
    "get_key": (_str, _ptr, _i64),
    "get_kv_type": (_int, _ptr, _i64),
    "get_data_offset": (_size, _ptr),
    "get_n_tensors": (_i64, _ptr),
    "get_tensor_name": (_str, _ptr, _i64),
    "get_tensor_offset": (_size, _ptr, _i64),
    "get_tensor_size": (_size, _ptr, _i64),
    "get_tensor_ne": (ctypes.POINTER(_i64), _ptr, _i64),
    "get_tensor_type": (_int, _ptr, _i64),
}
_VALUES: dict[int, tuple[str, Any]] = {  # type of a value -> the name of its reader, what that returns
    0: ("get_val_u8", ctypes.c_uint8),
    1: ("get_val_i8", ctypes.c_int8),
    2: ("get_val_u16", ctypes.c_uint16),
    3: ("get_val_i16", ctypes.c_int16),
    4: ("get_val_u32", ctypes.c_uint32),
    5: ("get_val_i32", ctypes.c_int32),
    6: ("get_val_f32", ctypes.c_float),
    7: ("get_val_bool", ctypes.c_bool),
    8: ("get_val_str", ctypes.c_char_p),
    10: ("get_val_u64", ctypes.c_uint64),
    11: ("get_val_i64", ctypes.c_int64),
    12: ("get_val_f64", ctypes.c_double),
}


@functools.cache
def parser() -> SimpleNamespace:
    """``gguf_<name>`` of the base library as ``parser().<name>``, and a reader for each type of value."""
    functions = {name: _declare(name, *signature) for name, signature in _FUNCTIONS.items()}
    # Asking for another type than the value has would abort the process.
    readers = {kind: _declare(name, result, _ptr, _i64) for kind, (name, result) in _VALUES.items()}
    return SimpleNamespace(**functions, readers=readers)


def _declare(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(ggml_base(), f"gguf_{name}")
    function.restype, function.argtypes = result, arguments
    return function
