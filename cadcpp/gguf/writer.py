"""Writes small GGUF files: models with made-up weights, to try llama.cpp on."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ALIGNMENT, _VERSION = 32, 3
_U32, _F32, _STRING = 4, 6, 8  # GGUF's types of values


@dataclass(frozen=True, slots=True)
class Weights:
    """One tensor: ggml's type and shape, the contiguous dimension first, and its bytes."""

    type: int
    shape: tuple[int, ...]
    data: bytes


def write_llama(path: Path, settings: Mapping[str, str | float], tensors: Mapping[str, Weights]) -> None:
    """Write a model of the llama architecture that has no vocabulary."""
    header = b"GGUF" + struct.pack("<IQQ", _VERSION, len(tensors), len(settings) + 2)
    header += _value("general.architecture", "llama") + _value("tokenizer.ggml.model", "none")
    header += b"".join(_value(f"llama.{key}", value) for key, value in settings.items())
    data = bytearray()
    for name, weights in tensors.items():
        n = len(weights.shape)
        header += _string(name) + struct.pack(f"<I{n}QIQ", n, *weights.shape, weights.type, len(data))
        data += _aligned(weights.data)
    path.write_bytes(_aligned(header) + data)


def _aligned(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // _ALIGNMENT) * _ALIGNMENT, b"\0")


def _value(key: str, value: str | float) -> bytes:
    if isinstance(value, str):
        return _string(key) + struct.pack("<I", _STRING) + _string(value)
    kind, letter = (_U32, "I") if isinstance(value, int) else (_F32, "f")
    return _string(key) + struct.pack(f"<I{letter}", kind, value)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
