"""What the verifier has evaluated, in a file, so that a later session need not evaluate it again.

A line of JSON with the tokens and a checksum, then the KV cache as llama.cpp writes it.
"""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cadcpp.errors import NativeError
from cadcpp.gguf.blocks import state_bytes
from cadcpp.gguf.header import Header
from cadcpp.kv.cache import Cache
from cadcpp.residency.footprint import cache_bytes

_LETTERS_EACH, _ROOM = 12, 1 << 20  # of a token in JSON; bytes for everything else


def save_cache(cache: Cache, path: Path) -> None:
    """Write a cache, at once or not at all. Raises OSError."""
    state = cache.context.save()
    head = {**_identity(cache.context.model.header), "tokens": cache.tokens, "sha256": _digest(cache.tokens, state)}
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            file.write(state)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def load_cache(cache: Cache, path: Path) -> bool:
    """Take up what `save_cache` wrote of the same model; else, or where it does not fit or is damaged, hold nothing."""
    cache.clear()
    found = _read(cache, path)
    if found is None:
        return False
    tokens, data = found
    try:
        cache.load(data, tokens)
    except NativeError:
        cache.clear()
    # The digest tells of accidents. Whoever made one for a state of their own gets no further than this.
    if len(cache) != len(tokens) or not cache.context.holds(len(tokens), len(data)):
        cache.clear()
    return bool(cache.tokens)


def _read(cache: Cache, path: Path) -> tuple[list[int], bytes] | None:
    """Tokens and state of a file that fits the cache."""
    context = cache.context
    n_cells = context.shape.n_cells
    try:
        n_bytes, header = path.stat().st_size, context.model.header
        if n_bytes > 2 * (cache_bytes(header, n_cells) + state_bytes(header)) + _ROOM:
            return None
        with open(path, "rb") as file:
            head = json.loads(file.readline(_LETTERS_EACH * n_cells + _ROOM))
            data = file.read()
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(head, dict) or not _are_tokens(head.get("tokens"), n_cells, context.model.n_vocab):
        return None
    same = _identity(context.model.header).items() <= head.items()
    return (head["tokens"], data) if same and head.get("sha256") == _digest(head["tokens"], data) else None


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
