"""Routers whose choices look like those of a trained mixture, for one that is made of a dense model.

What was measured of Qwen3-30B-A3B (128 experts; 128 tokens of a chat, 6 experts a token; route traces of BigMoeOnEdge,
15 July 2026): 64 experts of a layer are used in all, 33 to 107 by layer and most in the first; the 8 hottest take 44.5%
of the choices, 21.5% in the first layer; a token shares 38.0% of its experts with the token before and 26.7% with the
one eight before. `describe` gives these figures of any routing.

A router sees what its layer's feed-forward network is given. An expert's score is a bias, which falls with its rank in
popularity, and two parts that vary with the text: one along directions in which neighbouring tokens are alike, found as
those of the largest autocorrelation, and one along the others.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_RIDGE = 1e-3  # of the mean variance, added to all directions: a thousand tokens do not tell of the smallest


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How a layer's experts are chosen."""

    skew: float  # how much lower the bias of the last expert is than the first one's; the rest has a variance of 1
    alike: float = 0.55  # share of that variance along directions in which neighbours are alike
    n_alike: int = 12  # such directions


def like_qwen3(layer: int) -> Routing:
    """What comes near to the figures above: flat in the first layer, and the full skew from the sixth on."""
    return Routing(skew=min(1.0 + 0.4 * layer, 3.0))


def fit_router(
    inputs: NDArray[np.float32], lengths: list[int], n_experts: int, routing: Routing, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A router, [n_experts, n_embd], for what a layer is given, [n, n_embd]: texts of ``lengths``."""
    x = inputs.astype(np.float64)
    mean = x.mean(axis=0)
    whitened = _whitening(x - mean)
    directions = whitened @ _by_autocorrelation((x - mean) @ whitened, lengths)
    slow, fast = directions[:, : routing.n_alike], directions[:, routing.n_alike :]
    scores = math.sqrt(routing.alike) * slow @ _unit(slow.shape[1], n_experts, rng)
    scores += math.sqrt(1 - routing.alike) * fast @ _unit(fast.shape[1], n_experts, rng)
    bias = -routing.skew * rng.permutation(n_experts) / n_experts - mean @ scores
    return (scores + np.outer(_constant(x), bias)).T.astype(np.float32)


def _whitening(x: Floats) -> Floats:
    """Columns that make of centred ``x`` numbers without correlation and of variance 1, [n_embd, n_embd]."""
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    return np.asarray(vectors / np.sqrt(values + _RIDGE * values.mean()))


def _by_autocorrelation(z: Floats, lengths: list[int]) -> Floats:
    """An orthogonal basis of whitened ``z``, the direction first in which neighbouring tokens are most alike."""
    stops = np.cumsum(lengths)
    first = np.delete(np.arange(len(z)), stops - 1)
    lagged = z[first].T @ z[first + 1] / len(first)
    return np.asarray(np.linalg.eigh(lagged + lagged.T)[1][:, ::-1])


def _constant(x: Floats) -> Floats:
    """The direction along which all of ``x`` is as near to 1 as can be: a bias, where a router has none."""
    moments = x.T @ x / len(x)
    ridge = _RIDGE * np.trace(moments) / len(moments) * np.eye(len(moments))
    return np.asarray(np.linalg.solve(moments + 0.01 * ridge, x.mean(axis=0)))


def _unit(n: int, n_columns: int, rng: np.random.Generator) -> Floats:
    columns = rng.standard_normal((n, n_columns))
    return np.asarray(columns / np.linalg.norm(columns, axis=0))


def choices(inputs: NDArray[np.float32], router: NDArray[np.float32], n_used: int) -> NDArray[np.int64]:
    """The experts that each token is routed to, [n, n_used], the best first."""
    return np.argsort(-(inputs @ router.T), axis=1)[:, :n_used]


def describe(chosen: NDArray[np.integer], n_experts: int) -> dict[str, float]:
    """What one text's choices in one layer, [n, n_used], look like: the figures that this module's head gives."""
    counts = np.sort(np.bincount(chosen.ravel(), minlength=n_experts))[::-1]
    used = np.zeros((len(chosen), n_experts), bool)
    np.put_along_axis(used, chosen, True, axis=1)
    return {
        "used": float(np.count_nonzero(counts)),
        "hottest 8": float(counts[:8].sum() / counts.sum()),
        **{f"lag {lag}": float((used[lag:] & used[:-lag]).sum() / used[lag:].sum()) for lag in (1, 8)},
    }
