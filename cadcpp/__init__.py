"""Speculative decoding with llama.cpp for models larger than memory."""

import importlib
from typing import TYPE_CHECKING, Any

from cadcpp._version import __version__
from cadcpp.errors import (
    CadError,
    ConfigError,
    ContextFull,
    ModelError,
    NativeError,
    PairError,
    RecurrentError,
    ToolError,
)

if TYPE_CHECKING:
    from cadcpp.llama.llama import Llama
    from cadcpp.llama.twin import AsyncLlama

__all__ = [
    "AsyncLlama",
    "CadError",
    "ConfigError",
    "ContextFull",
    "Llama",
    "ModelError",
    "NativeError",
    "PairError",
    "RecurrentError",
    "ToolError",
    "__version__",
]

_LATER = {"AsyncLlama": "cadcpp.llama.twin", "Llama": "cadcpp.llama.llama"}  # they load llama.cpp


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'cadcpp' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
