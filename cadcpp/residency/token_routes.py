"""Which experts tokens used when they stood in the text last, and what that tells of what they will read."""

import numpy as np
from numpy.typing import NDArray

from cadcpp.tree.prices import Floats
from cadcpp.util.fading_line import FadingLine

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
        self._known, self._new = FadingLine(), FadingLine()  # experts that rows read, by those foreseen
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
        beyond = self._foreseen(tokens, missing) - self._known.mean[0]
        line = _level(self._known, average) + _slope(self._known) * beyond
        expected = np.where(self._is_known(tokens), line, _level(self._new, average))
        return np.asarray(np.clip(expected / average, 0.0, _DEAREST))

    def _learn(self, n_read: Floats) -> None:
        known, foreseen = self._is_known(self._tokens), self._foreseen(self._tokens, self._missing)
        for line, rows in ((self._known, known), (self._new, ~known)):
            line.fade(_SLOW ** len(known))
            line.add(foreseen[rows], n_read[rows])

    def _is_known(self, tokens: NDArray[np.integer]) -> NDArray[np.bool_]:
        return np.array([token in self._last for token in tokens.tolist()], bool)

    def _foreseen(self, tokens: NDArray[np.integer], missing: NDArray[np.bool_]) -> Floats:
        """Of what tokens used last, what is missing, [n]; 0 of those that are not known."""
        known, foreseen = self._is_known(tokens), np.zeros(len(tokens))
        if known.any():
            foreseen[known] = _n_missing(np.stack([self._last[token] for token in tokens[known].tolist()]), missing)
        return foreseen


def _n_missing(routes: NDArray[np.integer], missing: NDArray[np.bool_]) -> Floats:
    """Of experts, [n, n_layers, n_used], how many are missing, [n]."""
    layer = np.arange(routes.shape[1])[:, None]
    return np.asarray(missing[layer, routes].sum(axis=(1, 2)), np.float64)


def _level(seen: FadingLine, average: float) -> float:
    """What rows like those seen read, which are taken for average ones until there are some."""
    return (seen.weight * seen.mean[1] + _DOUBT * average) / (seen.weight + _DOUBT)


def _slope(seen: FadingLine) -> float:
    """What a row reads more for each expert that was foreseen, between none and all of it."""
    x, _ = seen.mean
    return min(max(seen.slope(_SPREAD * x * x / seen.weight), 0.0), 1.0) if x else 0.0
