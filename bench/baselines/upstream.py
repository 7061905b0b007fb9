"""llama-cpp-python's `Llama`, with weights as cadcpp loads those of a verifier: not repacked.

Some virtual machines announce units that llama.cpp's repacked kernels then lack.
"""

from pathlib import Path
from typing import Any

from llama_cpp import Llama, llama_cpp

from bench.measure.patched import patched


def load(path: Path, **options: Any) -> Llama:
    """One with upstream's own keyword arguments, and flash attention."""
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = False
    with patched(llama_cpp, {"llama_model_default_params": lambda: params}):
        return Llama(str(path), flash_attn=True, verbose=False, **options)
