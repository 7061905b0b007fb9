"""Writes small GGUF files: models with made-up weights, to try llama.cpp on."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ALIGNMENT, _VERSION = 32, 3
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9  # GGUF's types of values
Value = str | bool | int | float | Sequence[int]


@dataclass(frozen=True, slots=True)
class Weights:
    """One tensor: ggml's type and shape, the contiguous dimension first, and its bytes."""

    type: int
    shape: tuple[int, ...]
    data: bytes


def write_model(path: Path, architecture: str, settings: Mapping[str, Value], tensors: Mapping[str, Weights]) -> None:
    """Write a model that has no vocabulary."""
    header = b"GGUF" + struct.pack("<IQQ", _VERSION, len(tensors), len(settings) + 2)
    header += _value("general.architecture", architecture) + _value("tokenizer.ggml.model", "none")
    header += b"".join(_value(f"{architecture}.{key}", value) for key, value in settings.items())
    data = bytearray()
    for name, weights in tensors.items():
        n = len(weights.shape)
        header += _string(name) + struct.pack(f"<I{n}QIQ", n, *weights.shape, weights.type, len(data))
        data += _aligned(weights.data)
    path.write_bytes(_aligned(header) + data)


def _aligned(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // _ALIGNMENT) * _ALIGNMENT, b"\0")


def _value(key: str, value: Value) -> bytes:
    if isinstance(value, str):
        return _string(key) + struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, Sequence):
        return _string(key) + struct.pack(f"<IIQ{len(value)}i", _ARRAY, _I32, len(value), *value)
    kind, letter = _SCALARS[type(value)]
    return _string(key) + struct.pack(f"<I{letter}", kind, value)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


_SCALARS = {bool: (_BOOL, "?"), int: (_U32, "I"), float: (_F32, "f")}
