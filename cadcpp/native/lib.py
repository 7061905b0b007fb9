"""llama.cpp's libraries, loaded once with the settings that exact verification needs."""

import ctypes
import importlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cadcpp.gguf.ggml_base import binding_folder, last_error, listening, on_log

# The tiled kernels round differently from 8 rows on, so a batch would not repeat a single token's logits.
os.environ.setdefault("GGML_CPU_TILED_MM", "0")
# Threads wait for each other in loops. GNU's runtime of OpenMP lets them sleep after 300,000 rounds, some milliseconds:
# as long as another program has a core, all others only wait. On x86-64 a sixth of it costs nothing alone, and nothing
# beside others since the number of threads follows them; elsewhere rounds are shorter, and were not measured.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "50000" if platform.machine() in ("x86_64", "AMD64") else "10000")


def _import_api() -> Any:
    """The module of llama.cpp's C API.

    The package's own start imports all that its `Llama` class needs: 10 MB and most of cadcpp's start-up
    time. So a bare package stands in for it while the one module is imported, and then makes way.
    """
    if "llama_cpp" in sys.modules:
        return importlib.import_module("llama_cpp.llama_cpp")
    bare = ModuleType("llama_cpp")
    bare.__path__ = [str(binding_folder())]
    sys.modules["llama_cpp"] = bare
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    finally:
        del sys.modules["llama_cpp"]


_api = _import_api()
if TYPE_CHECKING:
    from llama_cpp import llama_cpp as api
else:
    api = _api

Signatures = Mapping[str, tuple[Any, Sequence[Any]]]  # of functions: what they give, and what they take

__all__ = ["Signatures", "api", "declared", "last_error", "library_files", "listening"]


def declared(signatures: Signatures) -> Any:
    """llama.cpp's library with all that it was linked with, of which these functions can be called."""
    library = api._lib
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def library_files() -> list[Path]:
    """llama.cpp's and ggml's files, which decide what is computed."""
    return sorted(path for path in (binding_folder() / "lib").iterdir() if path.is_file() and not path.is_symlink())


def quiet() -> None:
    """Send llama.cpp's log to the logger `cadcpp.llama`, which is silent unless configured."""
    api.llama_log_set(on_log, ctypes.c_void_p(0))


quiet()
api.llama_backend_init()
