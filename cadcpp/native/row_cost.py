"""What a row more costs on this machine: timed with a model too large for caches."""

import time
from contextlib import closing

import numpy as np

from cadcpp.gguf.sketch import Sketch
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from cadcpp.system.scratch_file import scratch_file

_N_BYTES = 64 << 20
_TIMES = 5


def relative_cost(made: Sketch, n_rows: int, *, n_threads: int) -> float:
    """Seconds of a pass of ``n_rows`` with repacked weights, in units of one with a single row; of some the least."""
    with closing(scratch_file()) as file:
        made.enlarged(_N_BYTES).write(file.path)
        with closing(Model(file.path, vocabulary=False, repacked=True)) as model:
            shape = ContextShape(n_cells=n_rows * 2, n_batch=n_rows, n_outputs=n_rows, n_seq=1)
            with closing(Context(model, shape, n_threads)) as context:
                times = [(_seconds(context, 1), _seconds(context, n_rows)) for _ in range(_TIMES)]
    alone, together = (min(column) for column in zip(*times[1:], strict=True))
    return float(together / alone)


def _seconds(context: Context, n: int) -> float:
    context.clear()
    context.batch.clear()
    context.batch.add(np.zeros(n, np.int32), 0, 0, 1, True)
    start = time.perf_counter()
    context.decode()
    return time.perf_counter() - start
