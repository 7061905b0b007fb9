"""ggml's base library by itself: its log, its types, and the door to its GGUF reader. Needs no binding, nor numpy."""

import contextlib
import ctypes
import functools
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

logger = logging.getLogger("cadcpp.llama")
logger.addHandler(logging.NullHandler())

_GGML_ERROR = 4
_MOST_LETTERS = 300  # of an error, which may quote a file's names
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, _GGML_ERROR: logging.ERROR}
_errors: list[str] = []
_listeners: list[tuple[int, Callable[[str], None]]] = []  # each with its thread


def binding_folder() -> Path:
    """Where llama-cpp-python is installed; it is not imported."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise ImportError("llama-cpp-python is not installed: pip install llama-cpp-python")
    return Path(spec.origin).parent


def _on_log(level: int, text: bytes, _user_data: int | None) -> None:
    shown = _LEVELS.get(level, logging.DEBUG)
    if not _listeners and level != _GGML_ERROR and not logger.isEnabledFor(shown):
        return  # of loading a model there are thousands
    line = text.decode("utf-8", "replace").rstrip()
    if level == _GGML_ERROR and line:
        _errors.append(line)
        del _errors[8:]
    logger.log(shown, line)
    for thread, listener in _listeners:
        if thread == threading.get_ident():  # another one may load another model
            listener(line)


on_log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_on_log)  # ggml's and llama.cpp's


@contextlib.contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Inside, ``listener`` is called with every line that llama.cpp logs on this thread."""
    mine = threading.get_ident(), listener
    _listeners.append(mine)
    try:
        yield
    finally:
        _listeners.remove(mine)


def last_error(default: str) -> str:
    """The first error line that llama.cpp logged since the last call, else ``default``."""
    line = _errors[0] if _errors else default  # the first says why, the rest say that it failed
    _errors.clear()
    return " ".join(line.split(": ", 1)[-1].split())[:_MOST_LETTERS]


@functools.cache
def ggml_base() -> Any:
    """The library, loaded on first use: what only computes must be importable without it."""
    library = _load()
    library.ggml_log_set(on_log, None)
    library.ggml_type_name.restype, library.ggml_type_name.argtypes = ctypes.c_char_p, (ctypes.c_int,)
    return library


def _load() -> Any:
    # Through libllama where that is loaded: the same library from another of its file names would be a second copy,
    # with a log of its own. The other way round the loader notices that libllama's dependency is there.
    library = getattr(sys.modules.get("llama_cpp.llama_cpp"), "_lib", None)
    if hasattr(library, "gguf_init_from_file"):
        return library
    folder = binding_folder() / "lib"
    found = sorted(folder.glob("*ggml-base.so*")) or sorted(folder.glob("*ggml-base.*"))
    return ctypes.CDLL(str(found[0]))


def type_name(kind: int) -> str:
    """The name of a tensor type, such as ``q8_0``."""
    return str(ggml_base().ggml_type_name(kind).decode())


def block_size(kind: int) -> int:
    """Weights that share a scale in a tensor type; 1 where none do."""
    size = ggml_base().ggml_blck_size
    size.restype, size.argtypes = ctypes.c_int64, (ctypes.c_int,)
    return int(size(kind))


def row_bytes(kind: int, length: int) -> int:
    """What a row of so many weights takes."""
    size = ggml_base().ggml_row_size
    size.restype, size.argtypes = ctypes.c_size_t, (ctypes.c_int, ctypes.c_int64)
    return int(size(kind, length))
