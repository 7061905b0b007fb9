"""What the verifier has evaluated, in a file, so that a later session need not evaluate it again.

A line of JSON with the tokens and a checksum, then the KV cache as llama.cpp writes it.
"""

import json
import os
import platform
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cadcpp.cache import Cache
from cadcpp.errors import NativeError
from cadcpp.native.gguf import Header


def keep(cache: Cache, path: Path) -> None:
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


def restore(cache: Cache, path: Path) -> bool:
    """Take up what `keep` wrote of the same model; else, and where it does not fit or is damaged, hold nothing."""
    cache.clear()
    try:
        with open(path, "rb") as file:
            head = json.loads(file.readline())
            data = file.read()
    except (OSError, ValueError):
        return False
    if not _fits(head, data, cache):
        return False
    try:
        cache.load(data, head["tokens"])
    except NativeError:
        cache.clear()
        return False
    return True


def _fits(head: Any, data: bytes, cache: Cache) -> bool:
    if not isinstance(head, dict) or head.get("sha256") != _digest(head.get("tokens"), data):
        return False
    same = _identity(cache.context.model.header).items() <= head.items()
    return same and len(head["tokens"]) < cache.context.config.n_cells


def _digest(tokens: object, data: bytes | memoryview) -> str:
    digest = sha256(json.dumps(tokens).encode())
    digest.update(data)
    return digest.hexdigest()


def _identity(header: Header) -> dict[str, Any]:
    """Where all of this is the same, evaluating the same tokens would give the same bits."""
    files = [[part.path.name, part.n_bytes, part.path.stat().st_mtime_ns] for part in header.parts]
    return {"model": files, "llama.cpp": version("llama-cpp-python"), "machine": [platform.node(), platform.machine()]}
