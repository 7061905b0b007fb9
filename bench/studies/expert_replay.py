"""Recorded routings against ways of choosing which experts stay: how many experts each would have had to read.

A routing is int [n_tokens, n_layers, n_used]. Whatever a layer uses is in memory while it is computed; then as many go
as there is no room for. A cache of the latest, one of the most frequent, and the optimum, which knows the future
(Belady 1966: what is used again last goes first), are what the runtime's own is compared with.
"""

import heapq
from collections.abc import Callable
from itertools import count

import numpy as np
from numpy.typing import NDArray

from cadcpp.residency.expert_cache import ExpertCache
from cadcpp.residency.layout import ExpertLayer

Routing = NDArray[np.integer]
Floats = NDArray[np.float64]
Replay = Callable[[Routing, int, int], Floats]  # routing, experts of a layer, room: reads of each token
_NEVER = np.iinfo(np.int64).max


def own(routing: Routing, n_experts: int, room: int) -> Floats:
    """Reads of each token with the runtime's cache, which holds ``room`` experts between two layers, [n_tokens]."""
    layers = [ExpertLayer(i, n_experts, ((0, i * n_experts, 1),)) for i in range(routing.shape[1])]
    cache = ExpertCache(layers, room)
    return _replay(routing, lambda layer, chosen: len(cache.choose(layer, chosen[None])[0]), cache.evict)


def latest(routing: Routing, n_experts: int, room: int) -> Floats:
    """... with a cache of those that were used last."""

    def update(score: Floats, chosen: Routing, clock: int) -> None:
        score[chosen] = clock

    return _ranked(routing, n_experts, room, update)


def frequent(routing: Routing, n_experts: int, room: int, fade: float = 1.0) -> Floats:
    """... with a cache of those that were used most often; a use counts ``fade`` times as much with every token."""

    def update(score: Floats, chosen: Routing, clock: int) -> None:
        score *= fade
        score[chosen] += 1.0

    return _ranked(routing, n_experts, room, update)


def optimum(routing: Routing, n_experts: int, room: int) -> Floats:
    """... by who knows the future."""
    n_tokens, n_layers, _ = routing.shape
    following = np.full((n_layers, n_experts), _NEVER)
    after = np.zeros(routing.shape, np.int64)  # when a use is followed by the next
    for token in range(n_tokens - 1, -1, -1):
        for layer in range(n_layers):
            chosen = routing[token, layer]
            after[token, layer] = following[layer, chosen]
            following[layer, chosen] = token * n_layers + layer
    return _optimum(routing, after, room)


def _optimum(routing: Routing, after: NDArray[np.int64], room: int) -> Floats:
    next_use: dict[tuple[int, int], int] = {}  # of what is in memory
    queue: list[tuple[int, int, int]] = []  # what is used again last comes first; old entries stay in it
    reads = np.zeros(len(routing))
    for token, layer in np.ndindex(routing.shape[:2]):
        for expert, then in zip(routing[token, layer].tolist(), after[token, layer].tolist(), strict=True):
            reads[token] += (layer, expert) not in next_use
            next_use[layer, expert] = then
            heapq.heappush(queue, (-then, layer, expert))
        while len(next_use) > room:
            then, *key = heapq.heappop(queue)
            if next_use.get((key[0], key[1])) == -then:
                del next_use[key[0], key[1]]
    return reads


def _ranked(routing: Routing, n_experts: int, room: int, update: Callable[[Floats, Routing, int], None]) -> Floats:
    """With a cache of the highest scores, [n_experts] of each layer, which ``update`` changes with every use."""
    score = np.zeros((routing.shape[1], n_experts))
    resident = np.zeros(score.shape, bool)
    clock = count(1)

    def choose(layer: int, chosen: Routing) -> int:
        n = int(np.count_nonzero(~resident[layer, chosen]))
        resident[layer, chosen] = True
        update(score[layer], chosen, next(clock))
        return n

    def evict(_layer: int) -> None:
        for _ in range(int(resident.sum()) - room):
            resident.flat[np.argmin(np.where(resident, score, np.inf))] = False

    return _replay(routing, choose, evict)


def _replay(routing: Routing, choose: Callable[[int, Routing], int], evict: Callable[[int], object]) -> Floats:
    reads = np.zeros(len(routing))
    for token, layer in np.ndindex(routing.shape[:2]):
        reads[token] += choose(layer, routing[token, layer])
        evict(layer)
    return reads
