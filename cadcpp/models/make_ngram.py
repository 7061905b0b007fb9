"""An n-gram model of a kind of text, for drafting without a draft model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from cadcpp.errors import ToolError
from cadcpp.gguf.vocabulary import fingerprint
from cadcpp.models.self_sampling import Count, SampleConfig, sample
from cadcpp.ngram.estimate import estimate
from cadcpp.ngram.file import pack
from cadcpp.util.files import new_file
from cadcpp.util.text_file import read_text


def make_ngram(
    path: Path,
    texts: Sequence[Path],
    target: Path,
    sampling: SampleConfig | None = None,
    progress: Count = lambda done, total: None,
) -> int:
    """Count what follows what in ``texts``, as the model in ``path`` reads them, and in what it writes by itself.

    Either may be missing. Returns how many tokens they have. A sampling that was ended goes on with the same
    call; until it is done, ``target`` has a neighbour that ends in .samples.
    """
    from cadcpp.native.model import Model

    model = Model(path, stub=True)  # only its vocabulary is needed
    try:
        ids: list[ArrayLike] = [model.tokenize(_text(text), add_special=False, parse_special=False) for text in texts]
        samples = target.with_name(f"{target.name}.samples")
        if sampling is not None:
            ids += sample(path, model, sampling, samples, progress)
        n = sum(map(np.size, ids))
        if n < 3:
            raise ToolError(f"{n} tokens are too few for an n-gram model: give more text, or let the model write some")
        data = pack(estimate(ids, model.n_vocab), fingerprint(model.header))
    finally:
        model.close()
    with new_file(target) as part:
        part.write_bytes(data)
    if sampling is not None:
        samples.unlink()
    return n


def _text(path: Path) -> str:
    return read_text(path, error=ToolError, otherwise="leave it out, or convert it")
