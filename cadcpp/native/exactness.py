"""Which numbers of rows give a row the same logits, bit for bit: tried on this machine, with a small model."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from numpy.ctypeslib import as_array
from numpy.typing import NDArray

from cadcpp.errors import ModelError
from cadcpp.gguf.blocks import state_bytes
from cadcpp.gguf.sketch import N_VOCAB, Sketch
from cadcpp.gguf.state_sketch import StateSketch
from cadcpp.native.context import Context
from cadcpp.native.lib import api
from cadcpp.native.model import Model
from cadcpp.native.rpc import Spread
from cadcpp.native.snapshots import keeps_snapshots
from cadcpp.residency.context_shape import ContextShape, verifier_shape
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.residency.states import States
from cadcpp.system.scratch_file import scratch_file
from cadcpp.tree.granularity import Granularity

# In the order of what they cost.
_NUMBERS = ((1,), (2,), (2, 2), (2, 2, 16), (4,), (4, 4), (4, 4, 16), (8, 8), (16, 16, 16))
CANDIDATES = tuple(Granularity(*numbers) for numbers in _NUMBERS)
_N_TEXT, _N_CELLS = 300, 512
_TEXT = np.random.default_rng(1).integers(N_VOCAB, size=_N_TEXT, dtype=np.int32)
_ALONE = 24  # rows that are computed one at a time, to compare with
_SINGLE = (*[1] * _ALONE, _N_TEXT - _ALONE)
_FEW = (2, 3, 4, 7, 8)  # rows of passes that tell most wrong numbers apart, for little
_WALKS = (  # rows of one pass after the other
    (2, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 155),
    (4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 146),
    (32, 64, 96, 108),
    (33, 65, 97, 105),
    (26, 30, 34, 52, 58, 100),
    (_N_TEXT,),
)
_SNAPSHOTS, _N_STATES = 8, 128  # tokens of the text that are read with states; matrices are tried without
Rows = NDArray[np.float32]


def find_granularity(
    made: Sketch | StateSketch,
    kernels: KernelMode,
    *,
    n_threads: int,
    spread: Spread | None = None,
    candidates: Sequence[Granularity] = CANDIDATES,
    n_text: int = _N_TEXT,
) -> Granularity | None:
    """The first number of rows with which all passes agree; None if none of the candidates does.

    With ``spread`` workers compute the layers.
    """
    with closing(scratch_file()) as file:
        made.write(file.path)
        with closing(Model(file.path, vocabulary=False, repacked=kernels.repacked, spread=spread)) as model:
            tried = ((each, replace(kernels, granularity=each)) for each in candidates)
            return next((found for found, mode in tried if agrees(model, mode, n_threads, n_text)), None)


def agrees_with_threads(made: Sketch | StateSketch, kernels: KernelMode, *, counts: Sequence[int]) -> bool:
    """Whether a text has the same logits and hidden states with any of these numbers of threads.

    Passes are compared with such of the same size: where one row at a time is computed, others need not be exact.
    """
    with closing(scratch_file()) as file:
        made.write(file.path)
        with closing(Model(file.path, vocabulary=False, repacked=kernels.repacked)) as model:
            for shape in _shapes(model, kernels):
                with closing(Context(model, shape, counts[0])) as context:
                    if not all(_Trial(context, asked).agrees_with_threads(counts) for asked in _asked(shape)):
                        return False
    return True


def agrees(model: Model, kernels: KernelMode, n_threads: int, n_text: int = _N_TEXT) -> bool:
    """Whether a text has the same logits and the same last hidden states in passes of all sizes, and in trees.

    With states, it has to have them whether or not llama.cpp keeps snapshots. A text of fewer than 300 tokens is
    quicker, and leaves out the largest passes.
    """
    expected: dict[_Asked, _Found] = {}
    for shape in _shapes(model, kernels):
        with closing(Context(model, shape, n_threads)) as context:
            if not all(_Trial(context, asked, n_text).agrees(expected) for asked in _asked(shape)):
                return False
    return True


def _shapes(model: Model, kernels: KernelMode) -> Iterator[ContextShape]:
    common = replace(verifier_shape(_N_CELLS, _N_TEXT, kernels=kernels), n_seq=2)
    if not state_bytes(model.header):
        yield common
        return
    for n_snapshots in (0, _SNAPSHOTS) if keeps_snapshots(model.header) else (0,):
        n_seq = 2 if n_snapshots else 1  # there are no several chains without
        yield replace(common, n_seq=n_seq, states=States(n_chains=n_seq, n_snapshots=n_snapshots))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of a pass: quantized weights may hide in the logits what differs in the hidden states."""

    logits: bool
    hidden: bool


def _asked(shape: ContextShape) -> tuple[_Asked, ...]:
    """Of some models with states llama.cpp computes no logits beside hidden states."""
    return (_Asked(True, False), _Asked(False, True)) if shape.states else (_Asked(True, True),)


class _Reading:
    """A text that is read in passes. With states, those that were filled up are taken back, and their text read again.

    That is how a cache does it where llama.cpp keeps no snapshots.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._n_held, self._state = context, 0, np.zeros(0, np.uint8)
        self.n = 0  # tokens read
        context.clear()

    def take(self, n: int, *, ends: bool = False) -> int:
        """Evaluate ``n`` more tokens, the last one alone with logits if ``ends``; gives the rows of the pass."""
        context = self._context
        self.n += n
        rows = _TEXT[self._n_held : self.n]
        context.batch.clear()
        context.batch.add(rows, self._n_held, 0, 1, np.arange(len(rows)) >= (len(rows) - 1 if ends else 0))
        context.decode()
        return len(rows)

    @property
    def state(self) -> NDArray[np.uint8] | None:
        """After all that was read; None where that was taken back, or there is none."""
        return self._state if self._n_held == self.n and len(self._state) else None

    def settle(self) -> None:
        """What the pass left is no longer needed."""
        context = self._context
        if context.n_held() == self.n:
            self._n_held = self.n
            self._state = context.save_state() if context.shape.states else self._state
        elif self._n_held:
            context.restore_state(self._state)
            context.trim(0, self._n_held)
        else:
            context.clear()


@dataclass(frozen=True, slots=True)
class _Found:
    """What a walk gave: what was asked of all rows, [n, n_vocab + n_embd], and the state at the end, if it was kept."""

    rows: Rows
    state: NDArray[np.uint8] | None

    def has_state(self, state: NDArray[np.uint8] | None) -> bool:
        """To the last bit; quantized weights after it hide what differs in a state, too."""
        return state is None or self.state is None or np.array_equal(state, self.state)


class _Trial:
    """One context, tried in several ways."""

    def __init__(self, context: Context, asked: _Asked, n_text: int = _N_TEXT) -> None:
        self._context, self._asked = context, asked
        self._n_text = min(n_text, _N_STATES) if context.shape.states else n_text
        api.llama_set_embeddings(context.handle, asked.hidden)

    def agrees(self, expected: dict[_Asked, _Found]) -> bool:
        """Whether all passes give what is expected, which is what those of one row gave first."""
        if not self._follows(_FEW, self._walk(_SINGLE[:_ALONE])):
            return False
        first = self._walk(_SINGLE)
        if not np.isfinite(first.rows).all():
            raise ModelError(f"the small {self._context.model.header.architecture} model computes what is no number")
        wanted = expected.setdefault(self._asked, first)
        same = np.array_equal(first.rows, wanted.rows) and all(self._follows(sizes, wanted) for sizes in _WALKS)
        if not same or not self._asked.logits:
            return same
        return (self._context.shape.n_seq == 1 or self._trees_agree(wanted.rows)) and self._ends_agree(wanted.rows)

    def agrees_with_threads(self, counts: Sequence[int]) -> bool:
        """Whether other numbers of threads give what the first does."""
        walks = _SINGLE, *_WALKS
        expected = [self._walk(sizes) for sizes in walks]
        for n in counts[1:]:
            self._context.use_threads(n)
            if not all(self._follows(walks[i], found) for i, found in enumerate(expected)):
                return False
        self._context.use_threads(counts[0])
        return True

    def _walk(self, sizes: Sequence[int]) -> _Found:
        reading = _Reading(self._context)
        rows = np.concatenate(list(self._evaluated(reading, sizes)))
        return _Found(rows, reading.state)

    def _follows(self, sizes: Sequence[int], expected: _Found) -> bool:
        """Whether the text's rows are the expected ones; the first pass that differs is the last."""
        reading, start = _Reading(self._context), 0
        for rows in self._evaluated(reading, sizes):
            if not np.array_equal(rows, expected.rows[start : start + len(rows)]):
                return False
            start += len(rows)
        return start < len(expected.rows) or expected.has_state(reading.state)

    def _evaluated(self, reading: _Reading, sizes: Sequence[int]) -> Iterator[Rows]:
        """Of one pass after the other what is asked of all rows, [n, n_vocab + n_embd]."""
        for n in self._cut(sizes):
            n_rows = reading.take(n)
            yield self._results(n_rows)[n_rows - n :]
            reading.settle()

    def _ends_agree(self, expected: Rows) -> bool:
        """Whether the last row of a pass is the same when it alone asks for logits, as at the end of a prompt."""
        api.llama_set_embeddings(self._context.handle, False)  # with them every row would ask
        reading = _Reading(self._context)
        for n in self._cut(_WALKS[0]):
            n_rows = reading.take(n, ends=True)
            if not np.array_equal(self._context.logits_at(n_rows - 1), expected[reading.n - 1, :N_VOCAB]):
                return False
            reading.settle()
        return True

    def _trees_agree(self, expected: Rows) -> bool:
        """Whether two branches of the same tokens are the same as the text; with states they are two chains."""
        context, start = self._context, 0
        context.clear()
        for n in _WALKS[0]:
            n = context.shape.granularity.length(2, n) if context.shape.states else n
            if start + n > len(expected) // 2:  # two branches fill a pass
                break
            context.fork(0, 1, 0, start)
            context.batch.clear()
            for seq in (0, 1):
                context.batch.add(_TEXT[start : start + n], start, seq, seq + 1, True)
            context.decode()
            if not np.array_equal(self._results(2 * n), np.tile(expected[start : start + n], (2, 1))):
                return False
            context.trim(1, 0)
            start += n
        return True

    def _cut(self, sizes: Sequence[int]) -> Iterator[int]:
        """Of passes as many rows as the text is taken to have."""
        return (min(n, self._n_text - start) for start, n in _passes(sizes) if start < self._n_text)

    def _results(self, n: int) -> Rows:
        """Of the first ``n`` rows."""
        context, parts = self._context, []
        if self._asked.logits:
            parts.append(context.logits(n))
        if self._asked.hidden:
            n_embd = api.llama_model_n_embd(context.model.handle)
            parts.append(as_array(api.llama_get_embeddings(context.handle), shape=(n, n_embd)))
        return np.concatenate(parts, axis=1)


def _passes(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(accumulate(sizes, initial=0), sizes, strict=False)
