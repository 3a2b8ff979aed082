"""Fronts: the points that no other one beats, and the hypervolume that they cover, in two or three objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.analysis.rows.points import Point
from pipeline.base.dominance import costs, non_dominated
from pipeline.results.metrics import Metric

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Front:
    """Points compared by some metrics: those that no other one dominates, and the rest.

    ``dropped`` says in words which points lack a metric and so take no part.
    """

    metrics: tuple[Metric, ...]
    front: tuple[Point, ...]
    dominated: tuple[Point, ...]
    dropped: tuple[str, ...]


def front(points: Sequence[Point], metrics: Sequence[Metric]) -> Front:
    """Split points by whether another one is at least as good in every metric and better in one."""
    complete, dropped = [], []
    for point in points:
        missing = [metric.key for metric in metrics if metric.of(point) is None]
        if missing:
            dropped.append(f"{point.name} has no finite {', '.join(missing)} and is left out")
        else:
            complete.append(point)
    values = [[metric.of(point) for metric in metrics] for point in complete]
    kept = non_dominated(np.array(values, float).reshape(len(complete), len(metrics)), _lower(metrics))
    return Front(
        tuple(metrics),
        tuple(point for point, keep in zip(complete, kept, strict=True) if keep),
        tuple(point for point, keep in zip(complete, kept, strict=True) if not keep),
        tuple(dropped),
    )


def hypervolume(values: ArrayLike, reference: ArrayLike, lower: Sequence[bool]) -> float:
    """The volume that the rows of ``values`` [points, 2 or 3] dominate, up to the ``reference`` point.

    A row that is not better than the reference in every objective adds nothing. Raises ``ValueError`` for nan and for
    another number of objectives.
    """
    bound = costs(np.atleast_2d(np.asarray(reference, float)), lower)[0]
    better = costs(values, lower)
    better = better[(better < bound).all(axis=1)]
    if len(bound) == 2:
        return _area(better, bound)
    if len(bound) == 3:
        return _volume(better, bound)
    raise ValueError(f"hypervolume is computed for 2 or 3 objectives, not {len(bound)}")


def _lower(metrics: Sequence[Metric]) -> list[bool]:
    undirected = [metric.key for metric in metrics if metric.lower is None]
    assert not undirected, f"no direction is better in {undirected}"
    return [bool(metric.lower) for metric in metrics]


def _area(points: Floats, bound: Floats) -> float:
    area, ceiling = 0.0, bound[1]
    for x, y in points[np.lexsort((points[:, 1], points[:, 0]))]:
        if y < ceiling:
            area += float((bound[0] - x) * (ceiling - y))
            ceiling = y
    return area


def _volume(points: Floats, bound: Floats) -> float:
    """Slabs between neighbouring heights, each as wide as the area of the points below it."""
    points = points[np.argsort(points[:, 2], kind="stable")]
    heights = [*points[:, 2], bound[2]]
    volume = 0.0
    for below, (bottom, top) in enumerate(pairwise(heights), start=1):
        if top > bottom:
            volume += float(top - bottom) * _area(points[:below, :2], bound[:2])
    return volume
