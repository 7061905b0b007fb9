"""Speculative decoding with llama.cpp for models larger than memory."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    sys.tracebacklimit = 0  # one line
    raise ImportError("cadcpp needs Linux, which Windows has as WSL: wsl --install, then install cadcpp there")

from cadcpp._version import __version__
from cadcpp.errors import (
    CadError,
    ClosedError,
    ConfigError,
    ContextFull,
    ModelError,
    NativeError,
    PairError,
    RecurrentError,
    ToolError,
)

if TYPE_CHECKING:
    from cadcpp.chat.conversation import Conversation
    from cadcpp.chat.template import Template
    from cadcpp.config import SamplingConfig, SessionConfig
    from cadcpp.llama.async_llama import AsyncLlama
    from cadcpp.llama.llama import Llama
    from cadcpp.native.context import Stopped
    from cadcpp.residency.memory_plan import Plan
    from cadcpp.runtime.aio import stream
    from cadcpp.runtime.round import Round
    from cadcpp.runtime.session import Chunk, Session
    from cadcpp.telemetry.stats import Stats
    from cadcpp.tree.limits import TreeLimits

__all__ = [
    "AsyncLlama",
    "CadError",
    "Chunk",
    "ClosedError",
    "ConfigError",
    "ContextFull",
    "Conversation",
    "Llama",
    "ModelError",
    "NativeError",
    "PairError",
    "Plan",
    "RecurrentError",
    "Round",
    "SamplingConfig",
    "Session",
    "SessionConfig",
    "Stats",
    "Stopped",
    "Template",
    "ToolError",
    "TreeLimits",
    "__version__",
    "stream",
]

_LATER = {  # name -> its module: they load numpy, and most of them llama.cpp
    "AsyncLlama": "cadcpp.llama.async_llama",
    "Chunk": "cadcpp.runtime.session",
    "Conversation": "cadcpp.chat.conversation",
    "Llama": "cadcpp.llama.llama",
    "Plan": "cadcpp.residency.memory_plan",
    "Round": "cadcpp.runtime.round",
    "SamplingConfig": "cadcpp.config",
    "Session": "cadcpp.runtime.session",
    "SessionConfig": "cadcpp.config",
    "Stats": "cadcpp.telemetry.stats",
    "Stopped": "cadcpp.native.context",
    "Template": "cadcpp.chat.template",
    "TreeLimits": "cadcpp.tree.limits",
    "stream": "cadcpp.runtime.aio",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'cadcpp' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return __all__
