"""llama.cpp's libraries, loaded once with the settings that exact verification needs."""

import contextlib
import ctypes
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

# The tiled kernels round differently from 8 rows on, so a batch would not repeat a single token's logits.
os.environ.setdefault("GGML_CPU_TILED_MM", "0")


def _import_api() -> tuple[Any, Path]:
    """The module of llama.cpp's C API, and its package's folder.

    The package's own start imports all that its `Llama` class needs: 10 MB and most of cadcpp's start-up
    time. So a bare package stands in for it while the one module is imported, and then makes way.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise ImportError("llama-cpp-python is not installed: pip install llama-cpp-python")
    if "llama_cpp" in sys.modules:
        return importlib.import_module("llama_cpp.llama_cpp"), Path(spec.origin).parent
    bare = ModuleType("llama_cpp")
    bare.__path__ = [str(Path(spec.origin).parent)]
    sys.modules["llama_cpp"] = bare
    try:
        return importlib.import_module("llama_cpp.llama_cpp"), Path(spec.origin).parent
    finally:
        del sys.modules["llama_cpp"]


_api, _folder = _import_api()
if TYPE_CHECKING:
    from llama_cpp import llama_cpp as api
else:
    api = _api

__all__ = ["api", "last_error", "listening", "ggml_base", "read_tensor", "tensor_name"]

logger = logging.getLogger("cadcpp.llama")
logger.addHandler(logging.NullHandler())

_GGML_ERROR = 4
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, _GGML_ERROR: logging.ERROR}
_errors: list[str] = []
_listeners: list[Callable[[str], None]] = []


@api.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    line = text.decode("utf-8", "replace").rstrip()
    if level == _GGML_ERROR and line:
        _errors.append(line)
        del _errors[8:]
    logger.log(_LEVELS.get(level, logging.DEBUG), line)
    for listener in _listeners:
        listener(line)


def quiet() -> None:
    """Send llama.cpp's log to the logger `cadcpp.llama`, which is silent unless configured."""
    api.llama_log_set(_on_log, ctypes.c_void_p(0))


@contextlib.contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Inside, ``listener`` is called with every line that llama.cpp logs, on the thread that logs it."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def last_error(default: str) -> str:
    """The first error line that llama.cpp logged since the last call, else ``default``."""
    line = _errors[0] if _errors else default  # the first says why, the rest say that it failed
    _errors.clear()
    return line.split(": ", 1)[-1]


def _load_ggml_base() -> Any:
    library = getattr(api, "_lib", None)
    if hasattr(library, "gguf_init_from_file"):  # through libllama: a second copy would log to stderr by itself
        return library
    folder = _folder / "lib"
    found = sorted(folder.glob("*ggml-base.so")) or sorted(folder.glob("*ggml-base.*"))
    return ctypes.CDLL(str(found[0]))


ggml_base = _load_ggml_base()  # holds the GGUF header reader, whose types gguf.py declares
tensor_name = ggml_base.ggml_get_name
tensor_name.restype, tensor_name.argtypes = ctypes.c_char_p, (ctypes.c_void_p,)
_n_bytes = ggml_base.ggml_nbytes
_n_bytes.restype, _n_bytes.argtypes = ctypes.c_size_t, (ctypes.c_void_p,)
_get = ggml_base.ggml_backend_tensor_get
_get.restype, _get.argtypes = None, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


def read_tensor(tensor: int) -> NDArray[np.int32]:
    """The numbers of a contiguous int32 tensor, flat."""
    values = np.empty(_n_bytes(tensor) // 4, np.int32)
    _get(tensor, values.ctypes.data, 0, values.nbytes)
    return values


quiet()
api.llama_backend_init()
