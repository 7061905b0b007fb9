"""Which numbers of rows give a row the same logits, bit for bit: tried on this machine, with a small model."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.ctypeslib import as_array
from numpy.typing import NDArray

from cadcpp.gguf.sketch import N_VOCAB, Sketch, write_sketch
from cadcpp.native.context import Context
from cadcpp.native.lib import api
from cadcpp.native.model import Model
from cadcpp.native.rpc import Spread
from cadcpp.residency.context_shape import ContextShape
from cadcpp.system.scratch_file import scratch_file
from cadcpp.tree.granularity import Granularity

# In the order of what they cost.
_NUMBERS = ((1,), (2,), (2, 2), (2, 2, 16), (4,), (4, 4), (4, 4, 16), (8, 8), (16, 16, 16))
CANDIDATES = tuple(Granularity(*numbers) for numbers in _NUMBERS)
_N_TEXT, _N_CELLS = 300, 512
_TEXT = np.random.default_rng(1).integers(N_VOCAB, size=_N_TEXT, dtype=np.int32)
_ALONE = 24  # rows that are computed one at a time, to compare with
_SINGLE = (*[1] * _ALONE, _N_TEXT)
_FEW = (2, 3, 4, 7, 8)  # rows of passes that tell most wrong numbers apart, for little
_WALKS = (  # rows of one pass after the other, until the text ends
    (2, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, _N_TEXT),
    (4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, _N_TEXT),
    (32, 64, 96, _N_TEXT),
    (33, 65, 97, _N_TEXT),
    (26, 30, 34, 52, 58, _N_TEXT),
    (_N_TEXT,),
)
_SHAPE = ContextShape(n_cells=_N_CELLS, n_batch=_N_TEXT, n_outputs=_N_TEXT, n_seq=2)
Rows = NDArray[np.float32]


def find_granularity(
    made: Sketch,
    *,
    repacked: bool,
    n_threads: int,
    spread: Spread | None = None,
    candidates: Sequence[Granularity] = CANDIDATES,
    n_text: int = _N_TEXT,
) -> Granularity | None:
    """The first number of rows with which all passes agree; None if none of the candidates does.

    With ``spread`` workers compute the layers.
    """
    with closing(scratch_file()) as file:
        write_sketch(file.path, made)
        with closing(Model(file.path, vocabulary=False, repacked=repacked, spread=spread)) as model:
            return next((g for g in candidates if agrees(model, g, n_threads, n_text)), None)


def agrees_with_threads(made: Sketch, granularity: Granularity, *, repacked: bool, counts: Sequence[int]) -> bool:
    """Whether a text has the same logits and hidden states with any of these numbers of threads.

    Passes are compared with such of the same size: where one row at a time is computed, others need not be exact.
    """
    with closing(scratch_file()) as file:
        write_sketch(file.path, made)
        with closing(Model(file.path, vocabulary=False, repacked=repacked)) as model:
            with closing(Context(model, replace(_SHAPE, granularity=granularity), counts[0])) as context:
                return _threads_agree(context, counts)


def _threads_agree(context: Context, counts: Sequence[int]) -> bool:
    api.llama_set_embeddings(context.handle, True)
    walks = _SINGLE, *_WALKS
    expected = [_walk(context, sizes, _N_TEXT) for sizes in walks]
    for n in counts[1:]:
        context.use_threads(n)
        if not all(np.array_equal(_walk(context, walks[i], _N_TEXT), rows) for i, rows in enumerate(expected)):
            return False
    return True


def agrees(model: Model, granularity: Granularity, n_threads: int, n_text: int = _N_TEXT) -> bool:
    """Whether a text has the same logits and the same last hidden states in passes of all sizes, and in trees.

    A text of fewer than 300 tokens is quicker, and leaves out the largest passes.
    """
    with closing(Context(model, replace(_SHAPE, granularity=granularity), n_threads)) as context:
        api.llama_set_embeddings(context.handle, True)
        if not _follows(context, _FEW, _walk(context, _SINGLE, _ALONE)):
            return False
        expected = _walk(context, _SINGLE, n_text)
        same = (_follows(context, sizes, expected) for sizes in _WALKS)
        return all(same) and _trees_agree(context, expected) and _ends_agree(context, expected)


def _walk(context: Context, sizes: Sequence[int], n_text: int) -> Rows:
    """Of the text's first rows, [n_text, n_vocab + n_embd]."""
    return np.concatenate([rows for _, rows in _evaluated(context, sizes, n_text)])


def _follows(context: Context, sizes: Sequence[int], expected: Rows) -> bool:
    """Whether the text's rows are the expected ones; the first pass that differs is the last."""
    passes = _evaluated(context, sizes, len(expected))
    return all(np.array_equal(rows, expected[start : start + len(rows)]) for start, rows in passes)


def _evaluated(context: Context, sizes: Sequence[int], n_text: int) -> Iterator[tuple[int, Rows]]:
    """Start and rows, [n, n_vocab + n_embd], of one pass after the other."""
    context.clear()
    for start, n in _passes(sizes, n_text):
        context.batch.clear()
        context.batch.add(_TEXT[start : start + n], start, 0, 1, True)
        context.decode()
        yield start, _results(context, n)


def _ends_agree(context: Context, expected: Rows) -> bool:
    """Whether the last row of a pass is the same when it alone asks for logits, as at the end of a prompt."""
    api.llama_set_embeddings(context.handle, False)  # with them every row would ask
    context.clear()
    for start, n in _passes(_WALKS[0], len(expected)):
        context.batch.clear()
        context.batch.add(_TEXT[start : start + n], start, 0, 1, np.arange(n) == n - 1)
        context.decode()
        if not np.array_equal(context.logits_at(n - 1), expected[start + n - 1, :N_VOCAB]):
            return False
    return True


def _trees_agree(context: Context, expected: Rows) -> bool:
    """Whether two branches of the same tokens are the same as the text."""
    context.clear()
    for start, n in _passes(_WALKS[0], len(expected) // 2):  # two branches fill a pass
        context.fork(0, 1, 0, start)
        context.batch.clear()
        for seq in (0, 1):
            context.batch.add(_TEXT[start : start + n], start, seq, seq + 1, True)
        context.decode()
        if not np.array_equal(_results(context, 2 * n), np.tile(expected[start : start + n], (2, 1))):
            return False
        context.trim(1, 0)
    return True


def _passes(sizes: Sequence[int], n_text: int) -> Iterator[tuple[int, int]]:
    """Starts and sizes of passes, until the text ends."""
    for start, n in zip(accumulate(sizes, initial=0), sizes, strict=False):
        if start < n_text:
            yield start, min(n, n_text - start)


def _results(context: Context, n: int) -> Rows:
    """Logits and hidden states of the first ``n`` rows: quantized weights may hide what differs in the states."""
    hidden = as_array(api.llama_get_embeddings(context.handle), shape=(n, api.llama_model_n_embd(context.model.handle)))
    return np.concatenate([context.logits(n), hidden], axis=1)
