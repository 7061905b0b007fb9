"""Re-quantize a GGUF with llama.cpp."""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cadcpp.errors import ConfigError, ToolError
from cadcpp.gguf.header import read_header
from cadcpp.gguf.validate import check_generative
from cadcpp.util.files import new_file

# Types that need an importance matrix are left out: llama.cpp refuses them without one.
TYPE_NAMES = tuple(
    "Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_0 Q4_1 Q4_K_S Q4_K_M Q5_0 Q5_1 Q5_K_S Q5_K_M Q6_K Q8_0 IQ4_NL IQ4_XS F16 BF16".split()
)


def check_type(type_name: str) -> str:
    """The name as llama.cpp writes it, if it is one of ``TYPE_NAMES``."""
    name = type_name.upper()
    if name not in TYPE_NAMES:
        raise ConfigError(f"unknown type {type_name!r}; choose one of {', '.join(TYPE_NAMES)}")
    return name


def requantize(src: Path, dst: Path, type_name: str) -> None:
    """Write ``src`` to ``dst`` with its weights in another type; ``dst`` appears whole or not at all."""
    name = check_type(type_name)
    if not src.is_file():
        raise ToolError(f"no file {src} to re-quantize; check the path")
    check_generative(read_header(src))
    with new_file(dst) as part:
        part.touch()  # tells why a directory cannot be written to; llama.cpp would only say "iostream error"
        _quantize(src, part, name)


def _quantize(src: Path, dst: Path, name: str) -> None:
    # Through lib, because it sets the environment that must be there before llama.cpp loads.
    from cadcpp.native.lib import api, last_error, quiet

    quiet()
    last_error("")  # an old one must not explain this call
    params = api.llama_model_quantize_default_params()
    params.ftype = getattr(api, f"LLAMA_FTYPE_MOSTLY_{name}")
    params.allow_requantize = True
    with _late_interrupt():
        code = api.llama_model_quantize(os.fsencode(src), os.fsencode(dst), ctypes.byref(params))
    if code != 0:
        reason = last_error("no reason given")
        raise ToolError(f"llama.cpp could not write {src.name} as {name}: {reason}; check the input and the free disk")


@contextmanager
def _late_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends: raised inside a ctypes callback it would be lost."""
    seen: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    try:
        before = signal.signal(signal.SIGINT, remember)
    except ValueError:  # not the main thread, so no signal arrives here
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if seen:
        raise KeyboardInterrupt
