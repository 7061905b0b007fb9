"""Chi-square goodness of fit, without scipy."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Table = tuple[NDArray[np.int64], NDArray[np.float64]]  # counts of every outcome, and their probabilities


def p_value(tables: Iterable[Table]) -> float:
    """How likely counts as far from their probabilities as these, over all tables, are by chance."""
    bins = [_bins(counts, p) for counts, p in tables]
    chi2 = sum(float(((seen - expected) ** 2 / expected).sum()) for seen, expected in bins)
    return survival(chi2, sum(len(seen) - 1 for seen, _ in bins))


def survival(chi2: float, dof: int) -> float:
    """Upper tail of the chi-square distribution, by Wilson and Hilferty's cube root."""
    z = ((chi2 / dof) ** (1 / 3) - (1 - 2 / (9 * dof))) / math.sqrt(2 / (9 * dof))
    return 0.5 * math.erfc(z / math.sqrt(2))


def _bins(counts: NDArray[np.int64], p: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts seen and expected; outcomes that are expected fewer than 5 times share one bin."""
    expected = p / p.sum() * counts.sum()
    order = np.argsort(-expected)
    n = max(int((expected >= 5).sum()), 1)
    if expected[order[n:]].sum() < 5:  # too rare even together: into the last common bin
        n = max(n - 1, 0)
    borders = np.arange(n + 1)
    return np.add.reduceat(counts[order].astype(float), borders), np.add.reduceat(expected[order], borders)
