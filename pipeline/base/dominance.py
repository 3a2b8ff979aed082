"""Which of several points no other one beats: the report's fronts and the search's best trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def non_dominated(values: ArrayLike, lower: Sequence[bool]) -> NDArray[np.bool_]:
    """Which rows of ``values`` [points, objectives] no other row dominates; ``lower`` says where less is better.

    Equal rows do not dominate each other. Infinite values are ordered as numbers. Raises ``ValueError`` for nan.
    """
    return unbeaten(costs(values, lower))


def unbeaten(points: Floats) -> NDArray[np.bool_]:
    """Which of ``points`` [..., points, objectives] no other one is as good as everywhere and better somewhere.

    Less is better; a point with a nan neither beats nor is beaten.
    """
    one, other = points[..., :, None, :], points[..., None, :, :]
    beats = np.asarray((one <= other).all(axis=-1) & (one < other).any(axis=-1))
    return np.asarray(~beats.any(axis=-2))


def costs(values: ArrayLike, lower: Sequence[bool]) -> Floats:
    """The values [points, objectives] with their sign such that less is better. Raises ``ValueError`` for nan."""
    array = np.asarray(values, float)
    if array.ndim != 2 or array.shape[1] != len(lower):
        raise ValueError(f"values have shape {array.shape}, not [points, {len(lower)}]")
    if np.isnan(array).any():
        raise ValueError("values hold nan; drop incomplete points first")
    return array * np.where(lower, 1.0, -1.0)
