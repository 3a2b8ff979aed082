"""A counter-based hash: random numbers that are a pure function of a seed and a position."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(values: UInt64) -> UInt64:
    """SplitMix64's output function (Steele, Lea and Flood 2014), a bijection of 64-bit integers that looks random."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * _FIRST
        values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


def keyed(*key: int) -> np.uint64:
    """One 64-bit key from several non-negative integers, their order counting."""
    state = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for part in key:
            state = mix(state + _GOLDEN + np.uint64(part & 0xFFFFFFFFFFFFFFFF))
    return np.uint64(state[0])


def random_integers(key: np.uint64, positions: UInt64, below: int) -> UInt64:
    """A uniform integer in [0, below) for each position. The bias, below / 2**64, is of no consequence."""
    with np.errstate(over="ignore"):
        return mix(mix(positions * _GOLDEN + key)) % np.uint64(below)
