"""Re-quantize a GGUF with llama.cpp."""

import ctypes
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from cadcpp.errors import ConfigError, ToolError
from cadcpp.tools.parts import new_file

# types that need an importance matrix are left out: llama.cpp refuses them without one
TYPE_NAMES = (
    *(
        "Q2_K",
        "Q3_K_S",
        "Q3_K_M",
        "Q3_K_L",
        "Q4_0",
        "Q4_1",
        "Q4_K_S",
        "Q4_K_M",
        "Q5_0",
        "Q5_1",
        "Q5_K_S",
        "Q5_K_M",
    ),
    *("Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS", "F16", "BF16"),
)

Progress = Callable[[float], None]

_ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR
_STEP = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")


def check_type(type_name: str) -> str:
    """The name as llama.cpp writes it, if it is one of ``TYPE_NAMES``."""
    name = type_name.upper()
    if name not in TYPE_NAMES:
        raise ConfigError(f"unknown type {type_name!r}; choose one of {', '.join(TYPE_NAMES)}")
    return name


def requantize(src: Path, dst: Path, type_name: str, *, progress: Progress | None = None) -> None:
    """Write ``src`` to ``dst`` with its weights in another type; ``dst`` appears whole or not at all."""
    name = check_type(type_name)
    if not src.is_file():
        raise ToolError(f"no file {src} to re-quantize; check the path")
    with new_file(dst) as part:
        part.touch()
        log = _Log(progress)
        with _late_interrupt():
            code = _quantize(src, part, name, log)
        if code != 0:
            raise ToolError(f"llama.cpp could not write {dst} as {name}: {log.reason}; check the disk and the input")


def _quantize(src: Path, dst: Path, name: str, log: "_Log") -> int:
    import llama_cpp

    callback = llama_cpp.llama_log_callback(log.take)
    with _log_to(callback):
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
        params.allow_requantize = True
        return int(llama_cpp.llama_model_quantize(os.fsencode(src), os.fsencode(dst), ctypes.byref(params)))


@contextmanager
def _log_to(callback: Any) -> Iterator[None]:
    import llama_cpp

    before = llama_cpp.llama_log_callback()
    user_data = ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(user_data))
    llama_cpp.llama_log_set(callback, ctypes.c_void_p())
    try:
        yield
    finally:
        llama_cpp.llama_log_set(before, user_data)


class _Log:
    """What llama.cpp says: its errors are kept, its steps become progress, nothing is printed."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._errors: list[str] = []

    def take(self, level: int, text: bytes, _user_data: object) -> None:
        line = text.decode("utf-8", "replace")
        if level == _ERROR_LEVEL:
            self._errors.append(" ".join(line.split()))
        step = _STEP.match(line)
        if step and self._progress:
            self._progress(int(step[1]) / int(step[2]))

    @property
    def reason(self) -> str:
        """The last error, which is the one that ended the work."""
        return self._errors[-1] if self._errors else "it gave no reason"


@contextmanager
def _late_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends: raised inside a ctypes callback it would be lost."""
    seen: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    try:
        before = signal.signal(signal.SIGINT, remember)
    except ValueError:
        # signals reach the main thread only, so elsewhere there is nothing to hold back
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if seen:
        raise KeyboardInterrupt
