"""Which experts tokens used when they stood in the text last, and what that tells of what they will read."""

import numpy as np
from numpy.typing import NDArray

from cadcpp.tree.prices import Floats

_MOST = 4096  # tokens that are remembered, in 3 MB where a model has 48 layers and uses 8 experts
_SLOW = 0.99  # weight of the past, per row
_DOUBT = 4.0  # rows that are no different from others, beside those that were seen
_SPREAD = 0.25  # relative variance of foreseen reads that a slope of its own is worth
_DEAREST = 4.0  # times an average row


class TokenRoutes:
    """How many experts a token's row will read, beside an average row.

    Routing goes by the token more than by what stands before it (OpenMoE, arXiv 2402.01739), so that the
    experts of last time that are missing by now foretell those that will be. How far they do is learned: a line for
    tokens that stood in the text, a mean for the others.
    """

    def __init__(self) -> None:
        self._last: dict[int, NDArray[np.integer]] = {}  # token -> its experts, [n_layers, n_used], latest at the end
        self._known, self._new = np.zeros(5), np.zeros(5)  # sums over rows: weight, x, y, x x, x y
        self._tokens: NDArray[np.int32] = np.zeros(0, np.int32)
        self._missing: NDArray[np.bool_] = np.zeros((0, 0), bool)
        self._chosen: list[NDArray[np.integer]] = []

    def begin(self, tokens: NDArray[np.int32], missing: NDArray[np.bool_]) -> None:
        """A pass over rows of these tokens, [n], begins, while experts are ``missing``, [n_layers, n_experts]."""
        self._tokens, self._missing, self._chosen = tokens.copy(), missing, []

    def note(self, chosen: NDArray[np.integer]) -> None:
        """The next layer's rows use these experts, [n, n_used]."""
        self._chosen.append(chosen)

    def end(self, *, learn: bool) -> None:
        """The pass is over; ``learn`` how far what was foreseen was right.

        The last layer may have fewer rows. What was cut short, or split, tells nothing.
        """
        n_layers, n = len(self._missing), len(self._tokens)
        layers = self._chosen[: n_layers - 1]
        if len(self._chosen) != n_layers or any(len(rows) != n for rows in layers):
            return
        routes = np.stack(layers, axis=1, dtype=np.int16)  # [n, n_layers - 1, n_used]
        if learn:
            self._learn(_n_missing(routes, self._missing))
        for token, route in zip(self._tokens.tolist(), routes, strict=True):
            self._last.pop(token, None)
            self._last[token] = route.copy()  # of those of a pass
        while len(self._last) > _MOST:
            del self._last[next(iter(self._last))]

    def expected(self, tokens: NDArray[np.integer], missing: NDArray[np.bool_], average: float) -> Floats:
        """How many experts rows of these tokens will read where an ``average`` row reads so many, in as many, [n].

        As with `begin`, ``missing`` are not in memory by now.
        """
        if average <= 0:
            return np.ones(len(tokens))
        known = self._is_known(tokens)
        expected = np.full(len(tokens), _level(self._new, average))
        if known.any():
            beyond = self._foreseen(tokens[known], missing) - self._known[1] / max(self._known[0], 1e-9)
            expected[known] = _level(self._known, average) + _slope(self._known) * beyond
        return np.asarray(np.clip(expected / average, 0.0, _DEAREST))

    def _learn(self, n_read: Floats) -> None:
        known = self._is_known(self._tokens)
        foreseen = np.zeros(len(known))
        if known.any():
            foreseen[known] = self._foreseen(self._tokens[known], self._missing)
        sums = np.stack([np.ones(len(known)), foreseen, n_read, foreseen**2, foreseen * n_read])
        fade = _SLOW ** len(known)
        self._known = fade * self._known + sums[:, known].sum(axis=1)
        self._new = fade * self._new + sums[:, ~known].sum(axis=1)

    def _is_known(self, tokens: NDArray[np.integer]) -> NDArray[np.bool_]:
        return np.array([token in self._last for token in tokens.tolist()], bool)

    def _foreseen(self, tokens: NDArray[np.integer], missing: NDArray[np.bool_]) -> Floats:
        """Of what tokens used last, what is missing, [n]."""
        return _n_missing(np.stack([self._last[token] for token in tokens.tolist()]), missing)


def _n_missing(routes: NDArray[np.integer], missing: NDArray[np.bool_]) -> Floats:
    """Of experts, [n, n_layers, n_used], how many are missing, [n]."""
    layer = np.arange(routes.shape[1])[:, None]
    return np.asarray(missing[layer, routes].sum(axis=(1, 2)), np.float64)


def _level(sums: Floats, average: float) -> float:
    """What rows like those seen read, which are taken for average ones until there are some."""
    return float((sums[2] + _DOUBT * average) / (sums[0] + _DOUBT))


def _slope(sums: Floats) -> float:
    """What a row reads more for each expert that was foreseen, between none and all of it."""
    if sums[1] == 0:
        return 0.0
    x, y, xx, xy = sums[1:] / sums[0]
    return float(np.clip((xy - x * y) / (xx - x * x + _SPREAD * x * x / sums[0]), 0.0, 1.0))
