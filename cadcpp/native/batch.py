"""Rows for one llama_decode, written through numpy views that are made once."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from cadcpp.errors import ConfigError
from cadcpp.native.lib import api
from cadcpp.residency.context_shape import MAX_SEQ
from cadcpp.tree.granularity import Granularity


class Batch:
    """Up to ``capacity`` rows; a row belongs to the consecutive sequences ``[lo, hi)``.

    Sequences are numbered in depth-first order of a tree's leaves, so the leaves under any node are
    one range, and every row can point into one shared array 0, 1, 2, ...
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.n = 0
        self._last_token = 2**31 - 1
        self.token = np.zeros(capacity, np.int32)
        self.pos = np.zeros(capacity, np.int32)
        self.n_seq = np.zeros(capacity, np.int32)
        self.output = np.zeros(capacity, np.int8)
        self._ids = np.arange(MAX_SEQ, dtype=np.int32)
        self._seq = np.zeros(capacity, np.uint64)
        self.struct = self._bind()

    def _bind(self) -> api.llama_batch:
        struct = api.llama_batch()
        struct.token = self.token.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        struct.pos = self.pos.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        struct.n_seq_id = self.n_seq.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        struct.seq_id = self._seq.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        struct.logits = self.output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        return struct

    def clip_tokens(self, last: int) -> None:
        """Write ids beyond ``last`` as this one from now on."""
        self._last_token = last

    def clear(self) -> None:
        self.n = 0

    @property
    def n_sequences(self) -> int:
        """Different sequences, or first ones of several, that rows belong to."""
        return len(np.unique(self._seq[: self.n]))

    def add(
        self,
        tokens: NDArray[np.int32] | list[int],
        pos: NDArray[np.int32] | int,
        lo: NDArray[np.int32] | int,
        hi: NDArray[np.int32] | int,
        output: NDArray[np.bool_] | bool,
    ) -> None:
        """Append rows; scalars apply to all of them, except that a scalar ``pos`` counts up from there."""
        k = len(tokens)
        if self.n + k > self.capacity:
            raise ConfigError(f"a batch of {self.n + k} rows exceeds its capacity of {self.capacity}")
        rows = slice(self.n, self.n + k)
        self.token[rows] = np.minimum(tokens, self._last_token)
        self.pos[rows] = pos + np.arange(k) if isinstance(pos, int) else pos
        self._seq[rows] = self._ids.ctypes.data + 4 * np.asarray(lo, np.uint64)
        self.n_seq[rows] = np.subtract(hi, lo)
        self.output[rows] = output
        self.n += k

    def pad(self, granularity: Granularity, seq: int) -> int:
        """Fill the rows up, and those that ask for logits; returns how many came on top.

        They are copies of the first row on sequences ``seq``, ``seq`` + 1, ..., so that a mixture of experts sends them
        where it sends that row. The last layer and the output weights see only rows that ask for logits, so more rows
        ask for some if need be.
        """
        n_outputs = int(np.count_nonzero(self.output[: self.n]))
        padding = granularity.whole(self.n) - self.n
        lo = np.arange(seq, seq + padding, dtype=np.int32)
        self.add(np.repeat(self.token[:1], padding), np.repeat(self.pos[:1], padding), lo, lo + 1, False)
        self._ask_for_more(granularity.whole(n_outputs) - n_outputs if n_outputs else 0)
        return padding

    def lengthen(self, granularity: Granularity) -> int:
        """Make all sequences equally long, and a whole number of rows, by repeating their last tokens.

        Rows must be of one sequence each. Returns 0, since no other sequence has a part in it.
        """
        n_outputs = int(np.count_nonzero(self.output[: self.n]))
        seqs = (self._seq[: self.n] - np.uint64(self._ids.ctypes.data)).astype(np.int64) // 4
        lengths = np.bincount(seqs)
        length = granularity.length(int(np.count_nonzero(lengths)), int(lengths.max()))
        for seq in np.flatnonzero(lengths).tolist():
            rows = np.flatnonzero(seqs == seq)
            missing, last = length - len(rows), int(rows[-1])
            self.add(np.repeat(self.token[last : last + 1], missing), int(self.pos[last]) + 1, seq, seq + 1, False)
        self._ask_for_more(granularity.whole(n_outputs) - n_outputs if n_outputs else 0)
        return 0

    def _ask_for_more(self, n: int) -> None:
        silent = np.flatnonzero(self.output[: self.n] == 0)
        self.output[silent[len(silent) - n :]] = 1
