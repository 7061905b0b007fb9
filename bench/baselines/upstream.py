"""llama-cpp-python's `Llama`, its weights as llama.cpp itself loads them."""

from pathlib import Path
from typing import Any

from llama_cpp import Llama, llama_cpp

from bench.baselines.own_defaults import model_params
from bench.measure.patched import patched


def load(path: Path, **options: Any) -> Llama:
    """One with upstream's own keyword arguments."""
    params = model_params(path)
    with patched(llama_cpp, {"llama_model_default_params": lambda: params}):
        return Llama(str(path), verbose=False, **options)
