"""What the verifier has evaluated, in a file, so that a later session need not evaluate it again.

A line of JSON with the tokens and checksums, then the KV cache as llama.cpp writes it, then the states of a recurrent
model at which earlier texts ended, the last one first.
"""

import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cadcpp.errors import NativeError
from cadcpp.gguf.blocks import state_bytes
from cadcpp.gguf.header import Header
from cadcpp.kv.cache import Cache, Kept
from cadcpp.residency.footprint import cache_bytes
from cadcpp.residency.states import MOST_MARKS

_LETTERS_EACH, _ROOM = 12, 1 << 20  # of a token in JSON; bytes for everything else


def save_cache(cache: Cache, path: Path) -> None:
    """Write a cache, at once or not at all. Raises OSError."""
    tokens, state, marks = cache.tokens, cache.context.save(), cache.marks()
    head = {
        **_identity(cache.context.model.header),
        "tokens": tokens,
        "bytes": len(state),
        "sha256": _digest(tokens, state),
        "marks": [[mark.n, len(mark.data), _digest(tokens[: mark.n], mark.data.data)] for mark in marks],
    }
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            file.write(state)
            for mark in marks:
                file.write(mark.data.data)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def load_cache(cache: Cache, path: Path) -> bool:
    """Take up what `save_cache` wrote of the same model; else, or where it does not fit or is damaged, hold nothing."""
    cache.clear()
    found = _read(cache, path)
    if found is None:
        return False
    tokens, data, marks = found
    try:
        cache.load(data, tokens, marks)
    except NativeError:
        cache.clear()
    # The digest tells of accidents. Whoever made one for a state of their own gets no further than this.
    if len(cache) != len(tokens) or not cache.context.holds(len(tokens), len(data)):
        cache.clear()
    return bool(cache.tokens)


def _read(cache: Cache, path: Path) -> tuple[list[int], bytes, list[Kept]] | None:
    """Tokens, state and marks of a file that fits the cache."""
    context = cache.context
    n_cells, header, states = context.shape.n_cells, context.model.header, context.shape.states
    try:
        if path.stat().st_size > 2 * (cache_bytes(header, n_cells) + (1 + MOST_MARKS) * state_bytes(header)) + _ROOM:
            return None
        with open(path, "rb") as file:
            head = json.loads(file.readline(_LETTERS_EACH * n_cells + _ROOM))
            if not isinstance(head, dict) or not _are_tokens(head.get("tokens"), n_cells, context.model.n_vocab):
                return None
            tokens, data = head["tokens"], file.read(head["bytes"])
            marks = list(_read_marks(file, tokens, head["marks"][: states.n_marks if states else 0]))
    except (OSError, ValueError, OverflowError, RecursionError, KeyError, TypeError):
        return None
    same = _identity(header).items() <= head.items()
    return (tokens, data, marks) if same and head.get("sha256") == _digest(tokens, data) else None


def _read_marks(file: BinaryIO, tokens: list[int], entries: list[Any]) -> Iterator[Kept]:
    """Those that are as they were; one that is damaged costs no more than what it would have saved."""
    for n, n_bytes, digest in entries:
        data = file.read(n_bytes)
        if data and 0 < n <= len(tokens) and digest == _digest(tokens[:n], data):
            yield Kept(n, np.frombuffer(data, np.uint8))


def _are_tokens(tokens: object, n_cells: int, n_vocab: int) -> bool:
    if not isinstance(tokens, list) or not 0 < len(tokens) < n_cells:
        return False
    return all(type(token) is int and 0 <= token < n_vocab for token in tokens)


def _digest(tokens: object, data: bytes | memoryview) -> str:
    from hashlib import sha256  # and OpenSSL, which few chats need

    digest = sha256(json.dumps(tokens).encode())
    digest.update(data)
    return digest.hexdigest()


def _identity(header: Header) -> dict[str, Any]:
    """Where all of this is the same, evaluating the same tokens would give the same bits."""
    files = [[part.path.name, part.n_bytes, part.path.stat().st_mtime_ns] for part in header.parts]
    return {"model": files, "llama.cpp": version("llama-cpp-python"), "machine": [platform.node(), platform.machine()]}
