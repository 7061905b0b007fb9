"""Whether a tree has the logits of its paths token by token, tried apart from how granularities are found."""

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cadcpp.gguf.sketch import N_VOCAB, Sketch
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import verifier_shape
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.text_state import TextState
from cadcpp.verify.verifier import Verifier
from tests.support.trees import random_tree

_SIZES = ((1, 7), (20, 33), (61, 48))  # tokens of a text, rows of its tree
_PATHS = 8  # of a tree, that are computed again


def replays(made: Sketch, kernels: KernelMode, *, n_threads: int) -> bool:
    """Whether all trees do in a model like the sketch, to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        made.write(path := Path(folder) / "model.gguf")
        shape = replace(verifier_shape(256, 64, kernels=kernels), n_batch=128)
        with (
            closing(Model(path, vocabulary=False, repacked=kernels.repacked)) as model,
            closing(Context(model, shape, n_threads)) as context,
        ):
            return all(_replays(context, *sizes) for sizes in _SIZES)


def _replays(context: Context, n_text: int, n_rows: int) -> bool:
    rng = np.random.default_rng(n_rows)
    text = rng.integers(N_VOCAB, size=n_text).tolist()
    tree = random_tree(rng, n_rows, N_VOCAB, text[-1])
    rows = rng.permutation(n_rows)[:_PATHS].tolist()
    found = _in_a_tree(context, text, tree)
    context.clear()
    _one_by_one(context, text[:-1], 0)
    return all(np.array_equal(found[row], _path(context, tree, row, n_text - 1)) for row in rows)


def _in_a_tree(context: Context, text: list[int], tree: TokenTree) -> NDArray[np.float32]:
    """Logits of all rows, [n, n_vocab]."""
    context.clear()
    verifier, state = Verifier(context), TextState(text)
    verifier.begin(state)
    verifier.evaluate(state, tree, lambda *_: -1)
    return context.logits(len(tree)).copy()


def _path(context: Context, tree: TokenTree, row: int, start: int) -> NDArray[np.float32]:
    """Logits of a row, [n_vocab], with nothing but its path."""
    context.trim(0, start)
    _one_by_one(context, tree.token[tree.ancestors(row)].tolist(), start)
    return np.array(context.logits(1)[0])


def _one_by_one(context: Context, ids: Sequence[int], start: int) -> None:
    for position, token in enumerate(ids, start):
        context.batch.clear()
        context.batch.add([token], position, 0, 1, True)
        context.decode()
