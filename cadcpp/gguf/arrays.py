"""The arrays in a GGUF's metadata, which ggml's own reader hands out one element a call: a vocabulary has 10^5."""

import mmap
import struct
from pathlib import Path
from typing import Any

from cadcpp.errors import ModelError

_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of a value, by its type
_INTEGERS = {4: "I", 5: "i"}
_STRING, _ARRAY = 8, 9
HEADER_BYTES = 32 << 20  # more than any model has; ggml takes eight bytes for each
_COUNTS_AT, _VALUES_AT = 16, 24
_length = struct.Struct("<Q").unpack_from


def read_strings(path: Path, key: bytes) -> list[bytes]:
    """An array of strings, each up to its first NUL, as llama.cpp has them; empty if there is none of this name."""
    with header_bytes(path) as data:
        kind, n, at = _find(path, data, key)
        texts = _strings(data, at, n)[0] if kind == _STRING else []
    return [text if b"\0" not in text else text[: text.index(b"\0")] for text in texts]


def read_integers(path: Path, key: bytes) -> list[int]:
    """An array of integers of 32 bits; empty if there is none of this name."""
    with header_bytes(path) as data:
        kind, n, at = _find(path, data, key)
        return list(struct.unpack_from(f"<{n}{_INTEGERS[kind]}", data, at)) if kind in _INTEGERS else []


def same_strings(path: Path, other: Path, key: bytes) -> bool:
    """Whether two files have the same array of strings, byte for byte: a tenth of the time of reading both."""
    with header_bytes(path) as data, header_bytes(other) as others:
        (kind, n, at), (kind_there, n_there, there) = _find(path, data, key), _find(other, others, key)
        if kind != _STRING or (kind, n) != (kind_there, n_there):
            return False
        n_bytes = _end(data, at, n) - at
        return memoryview(data)[at : at + n_bytes] == memoryview(others)[there : there + n_bytes]


def header_bytes(path: Path) -> mmap.mmap:
    """The start of a file, as much as a header can take; a copy where the file system has no mappings."""
    n_bytes = min(path.stat().st_size, HEADER_BYTES)
    with path.open("rb", buffering=0) as file:
        try:
            return mmap.mmap(file.fileno(), n_bytes, access=mmap.ACCESS_COPY)
        except OSError:
            data = mmap.mmap(-1, n_bytes)
            file.readinto(data)
            return data


def _find(path: Path, data: mmap.mmap, key: bytes) -> tuple[int, int, int]:
    """An array's type, length and place. The header must have been read without an error."""
    at = _VALUES_AT
    try:
        for _ in range(*_length(data, _COUNTS_AT)):
            (name,), at = _strings(data, at, 1)
            found, n, at = _type(data, at)
            if name == key:
                return found, n, at
            at = _end(data, at, n) if found == _STRING else at + n * _BYTES[found]
    except (struct.error, KeyError):
        raise ModelError(f"{path} was changed while it was read: try again") from None
    return -1, 0, 0


def _type(data: mmap.mmap, at: int) -> tuple[int, int, int]:
    """The type of a value or of its elements, how many there are, and where they lie."""
    (kind,) = struct.unpack_from("<i", data, at)
    if kind != _ARRAY:
        return kind, 1, at + 4
    kind, n = struct.unpack_from("<iQ", data, at + 4)
    return kind, n, at + 16


def _strings(data: Any, at: int, n: int) -> tuple[list[bytes], int]:
    """Some strings, and where they end."""
    texts = []
    for _ in range(n):
        start = at + 8
        at = start + _length(data, at)[0]
        texts.append(data[start:at])
    return texts, at


def _end(data: Any, at: int, n: int) -> int:
    """Where some strings end."""
    for _ in range(n):
        at += 8 + _length(data, at)[0]
    return at
