"""Speculative decoding with llama.cpp for models larger than memory."""

from cadcpp._version import __version__
from cadcpp.errors import CadError, ConfigError, ContextFull, ModelError, NativeError, PairError, ToolError

__all__ = [
    "CadError",
    "ConfigError",
    "ContextFull",
    "ModelError",
    "NativeError",
    "PairError",
    "ToolError",
    "__version__",
]
