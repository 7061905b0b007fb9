"""llama-cpp-python's own class as the oracle: the same call on it and on cadcpp's, whole results beside each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import cadcpp.native.lib  # noqa: F401  sets what has to be set before llama.cpp's library loads

from llama_cpp import Llama as Theirs  # isort: skip
from llama_cpp import llama_cpp as api  # isort: skip

__all__ = ["ALIKE", "Theirs", "api", "upstream", "whole"]

ALIKE = {"flash_attn": True, "type_k": api.GGML_TYPE_Q8_0, "type_v": api.GGML_TYPE_Q8_0}


@contextmanager
def upstream(path: Path, **options: Any) -> Iterator[Theirs]:
    """Upstream's class, configured alike, without repacked weights."""
    params = api.llama_model_default_params()
    params.use_extra_bufts = False
    with mock.patch.object(api, "llama_model_default_params", lambda: params):
        llama = Theirs(str(path), verbose=False, **(ALIKE | options))
    try:
        yield llama
    finally:
        llama.close()


def whole(result: Any) -> Any:
    """All of a result, or of the chunks of a stream, but what differs from call to call."""
    if isinstance(result, dict):
        return {name: "" if name in ("id", "created") else whole(value) for name, value in result.items()}
    if isinstance(result, list | Iterator):
        return [whole(item) for item in result]
    return result
