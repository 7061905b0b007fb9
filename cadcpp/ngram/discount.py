"""How far counts of n-grams are to be believed."""

import numpy as np
from numpy.typing import NDArray

RELIABLE = 5  # Katz's k: larger counts are believed as they are


def discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The factor for each of ``counts``, which are those of all n-grams of one length.

    Good-Turing as in Katz (1987), in the notation of Chen & Goodman (1998, TR-10-98, section 2.4):
    d_r = (r*/r - (k+1) n_{k+1}/n_1) / (1 - (k+1) n_{k+1}/n_1) with r* = (r+1) n_{r+1}/n_r for r <= k = 5, and
    d_r = 1 above. That takes away n_1 in all. Where few data make a factor that is not between 0 and 1, the
    same constant is taken off every count up to k instead.
    """
    n = np.bincount(np.minimum(counts, RELIABLE + 2), minlength=RELIABLE + 2)
    d = _good_turing(n[: RELIABLE + 2].astype(float))
    if not np.all((d > 0) & (d < 1)):
        d = _absolute(n)
    return np.concatenate([[1.0], d, [1.0]])[np.minimum(counts, RELIABLE + 1)]


def _good_turing(n: NDArray[np.float64]) -> NDArray[np.float64]:
    """d_1 to d_k from n_0 to n_{k+1}; not finite where a number that it divides by is 0."""
    r = np.arange(1, RELIABLE + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cut = (RELIABLE + 1) * n[RELIABLE + 1] / n[1]
        return np.asarray(((r + 1) * n[r + 1] / n[r] / r - cut) / (1 - cut))


def _absolute(n: NDArray[np.int64]) -> NDArray[np.float64]:
    """d_1 to d_k that take D = n_1/(n_1 + 2 n_2) off every count (Chen & Goodman 1998, section 2.6)."""
    off = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
    return 1 - off / np.arange(1, RELIABLE + 1)
