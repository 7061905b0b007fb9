"""The continuations of all histories of one length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH = 16  # continuations that a history keeps; 32 make 1 in 1000 guesses better and look-ups half as slow again
STEP = 1 / 2048  # of stored costs, in nats
Unsigned = NDArray[np.uint16] | NDArray[np.uint32] | NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Table:
    """h histories and their c continuations, as parallel arrays.

    A history is one number: its token, or ``before * n_vocab + last``. The last one is a sentinel without
    continuations, larger than any other; it stands for every history that was never seen. ``token`` and
    ``cost`` end in WIDTH entries that mean nothing, so that WIDTH of them can be read from any place.
    """

    history: Unsigned  # [h], rising
    first: NDArray[np.uint32]  # [h + 1], where the continuations of each begin
    backoff: NDArray[np.float32]  # [h], ln of the weight of the shorter history; 0 for the sentinel
    token: Unsigned  # [c + WIDTH], likeliest first
    cost: NDArray[np.uint16]  # [c + WIDTH], -ln P in units of STEP

    def find(self, histories: NDArray[np.int64]) -> NDArray[np.intp]:
        """The row of every history, [n]; the sentinel's for one that is not here or is negative."""
        wanted = np.where(histories < 0, self.history[-1], histories.astype(self.history.dtype))
        row = np.searchsorted(self.history, wanted)
        return np.where(self.history[row] == wanted, row, len(self.history) - 1)

    def continuations(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Tokens and log probabilities after every row, [n, WIDTH]; -1 and -inf where there are no more."""
        at = self.first[rows].astype(np.intp)[:, None] + np.arange(WIDTH)
        there = at < self.first[rows + 1][:, None]
        token = np.where(there, self.token[at], np.int32(-1)).astype(np.int32)
        logp = np.where(there, self.cost[at] * np.float32(-STEP), np.float32(-np.inf))
        return token, logp


def history_dtype(n_vocab: int) -> np.dtype[np.unsignedinteger]:
    """The type of a table's histories, which holds two tokens and the sentinel."""
    return np.dtype("<u4" if n_vocab**2 < 2**32 else "<u8")


def token_dtype(n_vocab: int) -> np.dtype[np.unsignedinteger]:
    """The type of a table's tokens."""
    return np.dtype("<u2" if n_vocab <= 2**16 else "<u4")
