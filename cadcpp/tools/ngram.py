"""An n-gram model of a kind of text, for drafting without a draft model."""

from collections.abc import Sequence
from pathlib import Path

from cadcpp.errors import ToolError
from cadcpp.ngram.estimate import estimate
from cadcpp.ngram.file import pack
from cadcpp.pair import fingerprint
from cadcpp.tools.parts import new_file


def make_ngram(verifier: Path, texts: Sequence[Path], target: Path) -> int:
    """Count what follows what in ``texts``, as ``verifier`` reads them; returns how many tokens they have."""
    from cadcpp.native.model import Model

    model = Model(verifier, stub=True)  # only its vocabulary is needed
    try:
        ids = [model.tokenize(_read(path), add_special=False, parse_special=False) for path in texts]
        n = sum(map(len, ids))
        if n < 3:
            raise ToolError(f"{n} tokens in {len(texts)} files are too few for an n-gram model: give more text")
        data = pack(estimate(ids, model.n_vocab), fingerprint(model.header))
    finally:
        model.close()
    with new_file(target) as part:
        part.write_bytes(data)
    return n


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ToolError(f"cannot read {path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise ToolError(f"{path} is not UTF-8 text: leave it out, or convert it") from None
