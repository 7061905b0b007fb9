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
    from cadcpp.aio import stream
    from cadcpp.chat import Conversation
    from cadcpp.config import SamplingConfig, SessionConfig, TreeConfig
    from cadcpp.engine import Round
    from cadcpp.llama.llama import Llama
    from cadcpp.llama.twin import AsyncLlama
    from cadcpp.native.context import Stopped
    from cadcpp.native.template import Template
    from cadcpp.plan import Plan
    from cadcpp.session import Chunk, Session
    from cadcpp.stats import Stats

__all__ = [
    "AsyncLlama",
    "CadError",
    "Chunk",
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
    "TreeConfig",
    "__version__",
    "stream",
]

_LATER = {  # name -> its module: they load numpy, and most of them llama.cpp
    "AsyncLlama": "cadcpp.llama.twin",
    "Chunk": "cadcpp.session",
    "Conversation": "cadcpp.chat",
    "Llama": "cadcpp.llama.llama",
    "Plan": "cadcpp.plan",
    "Round": "cadcpp.engine",
    "SamplingConfig": "cadcpp.config",
    "Session": "cadcpp.session",
    "SessionConfig": "cadcpp.config",
    "Stats": "cadcpp.stats",
    "Stopped": "cadcpp.native.context",
    "Template": "cadcpp.native.template",
    "TreeConfig": "cadcpp.config",
    "stream": "cadcpp.aio",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'cadcpp' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return __all__
