"""Gumbel noise that anyone can look up who knows the seed: the same bits on every machine.

A token is drawn as the argmax of its log probability plus such noise, which is exactly a draw from the
probabilities (the Gumbel-max trick). Only operations that IEEE 754 rounds correctly are used: the logarithm of a
platform's mathematics library may differ in its last bit.
"""

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_SHIFTS, _FACTORS = (30, 27, 31), (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 1)
_LN_2, _SQRT_HALF = 0.6931471805599453, 0.7071067811865476
_SERIES = [1 / n for n in range(21, 0, -2)]  # of the area hyperbolic tangent, the last term first


def gumbel(seed: int, position: int, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """Standard Gumbel noise of some tokens at one position of a text, [n]; independent over all three arguments."""
    return -log(-log(uniform(seed, position, tokens)))


def rough_gumbel(seed: int, position: int, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """The same in a fifth of the time, for whoever does not mind the last bit."""
    return np.asarray(-np.log(-np.log(uniform(seed, position, tokens))))


def uniform(seed: int, position: int, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """Numbers between 0 and 1, neither included, in steps of 2^-52, [n]."""
    bits = split_mix(_mixed(_mixed(seed) + position), tokens)
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def split_mix(key: int, n: NDArray[np.integer]) -> NDArray[np.uint64]:
    """The n-th outputs, from 0 on, of the generator SplitMix64 seeded with ``key`` (Steele et al., OOPSLA 2014)."""
    state = n.astype(np.uint64) * np.uint64(_GAMMA) + np.uint64((key + _GAMMA) & _MASK)
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=True):
        state ^= state >> np.uint64(shift)
        state *= np.uint64(factor)
    return state


def _mixed(key: int) -> int:
    """64 bits that depend on all of the key's: the first output of SplitMix64 seeded with it."""
    state = (key + _GAMMA) & _MASK
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=True):
        state = ((state ^ state >> shift) * factor) & _MASK
    return state


def log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm of positive numbers, to 2 units in the last place, [n]."""
    fraction, exponent = np.frexp(x)
    small = fraction < _SQRT_HALF
    fraction = np.where(small, 2 * fraction, fraction)
    t = (fraction - 1) / (fraction + 1)
    square, total = t * t, np.full_like(t, _SERIES[0])
    for term in _SERIES[1:]:
        total = total * square + term
    return np.asarray((exponent - small) * _LN_2 + 2 * t * total)
