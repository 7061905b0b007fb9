"""The demo pair: a draft and a verifier of any size, both made from SmolLM2-135M-Instruct.

The verifier is a *widened* SmolLM2 (see ``widen``): its speed is real, its wit is SmolLM2's. SmolLM2's rows of 576
weights are no whole blocks of the K-quants, in place of which llama.cpp takes other types: for these they are padded.
It can be a hybrid too (see ``add_states``), with the bytes and the work of one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cadcpp.errors import ConfigError
from cadcpp.models import smollm2
from cadcpp.models.edit.add_states import add_states
from cadcpp.models.edit.pad_rows import pad_rows
from cadcpp.models.edit.quantize import check_type, requantize
from cadcpp.models.edit.rewrite import require_gguf
from cadcpp.models.edit.widen_ffn import Widenable
from cadcpp.util.byte_size import format_size
from cadcpp.util.files import reported, require_space, scratch_directory, sweep

DEFAULT_SIZE_BYTES = 1_200_000_000
DEFAULT_TYPE = "Q8_0"
DEFAULT_DRAFT_TYPE = "Q2_K"
NGRAM_NAME = "smollm2-135m.ngram"

_PLAIN_BYTES = 275_000_000  # SmolLM2 in the largest type, F16
_HYBRID_BYTES = 900_000_000  # SmolLM2 in F16, as a hybrid in F16, and in the type that is asked for
_PADDED_BYTES = 525_000_000  # SmolLM2 with padded rows, as it was published and in the largest type
_NGRAM_TOKENS = 32_768  # one and a half minutes on two cores

Progress = Callable[[str, float], None]  # what is being made, and the part of it that is done


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPair:
    """Paths of a draft and of the verifier that it drafts for."""

    draft: Path
    verifier: Path


def demo_names(size_bytes: int, type_name: str, draft_type: str) -> tuple[str, str]:
    """The file names of the draft and of the verifier."""
    verifier_name = f"smollm2-135m-wide-{_in_name(size_bytes)}-{type_name}.gguf"
    return f"smollm2-135m-draft-{draft_type}.gguf", verifier_name


def _in_name(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.4g}GB" if size_bytes >= 1_000_000_000 else f"{size_bytes / 1e6:.4g}MB"


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
    with reported(directory):
        if not (pair.draft.is_file() and pair.verifier.is_file()):
            _make_pair(pair, size_bytes, type_name, draft_type, progress)
    return pair


def make_demo_ngram(draft: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """An n-gram model beside ``draft`` of what it writes by itself, if it is not there yet.

    ``progress`` is told how many tokens are written, of how many.
    """
    path = draft.with_name(NGRAM_NAME)
    if not path.is_file():
        # Here, because a demo that is there must load nothing.
        from cadcpp.models.make_ngram import make_ngram
        from cadcpp.models.self_sampling import SampleConfig

        make_ngram(draft, [], path, SampleConfig(n_tokens=_NGRAM_TOKENS), progress)
    return path


def smollm2_as(type_name: str, directory: Path, *, progress: Progress = lambda what, fraction: None) -> Path:
    """SmolLM2 itself in ``directory`` with its weights as ``type_name``."""
    type_name = check_type(type_name)
    path = directory / f"smollm2-135m-{type_name}.gguf"
    with reported(directory):
        if not path.is_file():
            source = _source(directory, _PLAIN_BYTES, progress)
            _requantize(source, path, type_name, progress)
    return path


def padded_verifier(
    directory: Path, type_name: str, n_ff: int, *, progress: Progress = lambda what, fraction: None
) -> Path:
    """SmolLM2 in ``directory``, padded and widened to ``n_ff`` neurons a layer: a verifier of one shape in any type."""
    type_name = check_type(type_name)
    path = directory / padded_name(n_ff, type_name)
    with reported(directory):
        if not path.is_file():
            require_gguf()
            source = _source(directory, _PADDED_BYTES, progress)
            _make_verifier(source, path, type_name, lambda model: n_ff, progress, padded=True)
    return path


def hybrid_verifier(
    directory: Path,
    *,
    size_bytes: int = DEFAULT_SIZE_BYTES,
    type_name: str = DEFAULT_TYPE,
    progress: Progress = lambda what, fraction: None,
) -> Path:
    """SmolLM2 in ``directory`` as a hybrid: its blocks stand between short convolutions that add nothing.

    It is the widest one whose file is no larger than ``size_bytes``.
    """
    type_name = check_type(type_name)
    path = directory / hybrid_name(size_bytes, type_name)
    with reported(directory):
        if not path.is_file():
            require_gguf()
            source = _source(directory, _HYBRID_BYTES + size_bytes, progress)
            with scratch_directory(directory) as scratch:
                requantize(source, scratch / "f16.gguf", "F16")  # in which it can be scaled
                add_states(scratch / "f16.gguf", scratch / "hybrid.gguf")
                width = partial(_width, size_bytes=size_bytes, type_name=type_name)
                _make_verifier(scratch / "hybrid.gguf", path, type_name, width, progress, padded=False)
    return path


def hybrid_name(size_bytes: int, type_name: str) -> str:
    """The file name of a hybrid verifier."""
    return f"smollm2-135m-hybrid-{_in_name(size_bytes)}-{type_name}.gguf"


def padded_name(n_ff: int, type_name: str) -> str:
    """The file name of a padded verifier."""
    return f"smollm2-135m-wide-768x{n_ff}-{type_name}.gguf"


def _make_pair(pair: DemoPair, size_bytes: int, type_name: str, draft_type: str, progress: Progress) -> None:
    require_gguf()
    needs_draft, needs_verifier = not pair.draft.is_file(), not pair.verifier.is_file()
    padded = _has_long_blocks(type_name)
    scratch_bytes = _PADDED_BYTES if padded else _PLAIN_BYTES
    n_bytes = needs_draft * _PLAIN_BYTES + needs_verifier * (scratch_bytes + size_bytes)
    source = _source(pair.draft.parent, n_bytes, progress)
    if needs_verifier:
        width = partial(_width, size_bytes=size_bytes, type_name=type_name)
        _make_verifier(source, pair.verifier, type_name, width, progress, padded=padded)
    if needs_draft:
        _requantize(source, pair.draft, draft_type, progress)


def _has_long_blocks(type_name: str) -> bool:
    return "_K" in type_name or type_name == "IQ4_XS"


def _source(directory: Path, n_more_bytes: int, progress: Progress) -> Path:
    """SmolLM2 as it was published, once there is room for it and for what will be made of it."""
    sweep(directory)
    require_space(directory, smollm2.missing_bytes(directory) + n_more_bytes)
    progress(smollm2.SOURCE_NAME, 0.0)
    path = smollm2.source(directory)
    progress(smollm2.SOURCE_NAME, 1.0)
    return path


def _requantize(source: Path, path: Path, type_name: str, progress: Progress) -> None:
    progress(path.name, 0.0)
    requantize(source, path, type_name)
    progress(path.name, 1.0)


def _make_verifier(
    source: Path, path: Path, type_name: str, width: Callable[[Widenable], int], progress: Progress, *, padded: bool
) -> None:
    progress(path.name, 0.0)
    with scratch_directory(path.parent) as scratch:
        if padded:
            pad_rows(source, scratch / "padded.gguf")
            source = scratch / "padded.gguf"
        # Quantized before it is widened: no large intermediate, and every weight stays as SmolLM2 has it.
        plain = scratch / "plain.gguf"
        requantize(source, plain, type_name)
        model = Widenable(plain)
        n_ff = width(model)
        require_space(path.parent, model.file_bytes_at(n_ff))
        model.write(path, n_ff, progress=lambda fraction: progress(path.name, fraction))


def _width(model: Widenable, size_bytes: int, type_name: str) -> int:
    """The largest that fits into a file of that size."""
    if size_bytes < model.file_bytes:
        raise ConfigError(
            f"size {size_bytes} ({format_size(size_bytes)}) is less than SmolLM2 itself as {type_name}: ask for"
            f" {model.file_bytes} ({format_size(model.file_bytes)}) or more, or for a smaller type"
        )
    return model.n_ff_within(size_bytes)
