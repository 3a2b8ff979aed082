"""How much faster at equal quality, and at equal cost: curves interpolated where both exist, never beyond.

Equal quality: each family's non-dominated points of quality and throughput, throughput log-linear in loss between them.
Equal cost: a series' sizes in order of training FLOPs or bytes a sample, linear in the cost's logarithm between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.bootstrap import Sample
from pipeline.analysis.metrics import Metric
from pipeline.analysis.table import Point

Floats = NDArray[np.float64]
REPLICATES = 500
CONFIDENCE = 95.0
DEFINED = 0.8  # share of the replicates that must reach a value for it to have an interval


@dataclass(frozen=True)
class Estimate:
    """A comparison where both have the value ``at`` of what is held equal, the value of the point ``anchor``.

    ``low`` and ``high`` bound it with 95 % confidence.
    """

    anchor: str
    at: float
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Matched:
    """``measured`` of ``first`` against that of ``second`` where both have the same value of ``equal``.

    ``estimates`` holds one for each point of either curve within the range that both reach, from the best value of
    ``equal``: a ratio where ``measured`` is logarithmic, else a difference. Between two points the comparison lies
    between theirs. ``remark`` says why there is no estimate, or no interval.
    """

    equal: Metric
    measured: Metric
    first: str
    second: str
    estimates: tuple[Estimate, ...]
    remark: str = ""

    @property
    def best(self) -> Estimate | None:
        """The estimate at the best value of ``equal`` that both reach."""
        return self.estimates[0] if self.estimates else None


@dataclass(frozen=True)
class _Scale:
    """A metric's values to what is interpolated: logarithms where it is logarithmic, and less is better."""

    logarithmic: bool
    sign: float

    def forward(self, values: Floats) -> Floats:
        return self.sign * (np.log(values) if self.logarithmic else values)

    def back(self, differences: Floats) -> Floats:
        """A difference of scaled values as a ratio or a difference of the metric's own."""
        return np.asarray(np.exp(self.sign * differences) if self.logarithmic else self.sign * differences)


@dataclass(frozen=True)
class _Curve:
    """``y`` over strictly increasing ``x``, linear in between and nowhere else; ``points`` are its corners' indices."""

    x: Floats
    y: Floats
    points: NDArray[np.int64]

    def at(self, x: Floats) -> Floats:
        return np.asarray(np.interp(x, self.x, self.y, left=np.nan, right=np.nan))


Side = tuple[str, Sequence[Point]]
Builder = Callable[[Floats, Floats], _Curve]


def at_equal_quality(first: Side, second: Side, quality: Metric, throughput: Metric) -> Matched:
    """The ratio of two families' throughput, along their fronts, at every quality that both reach."""
    return _match(first, second, quality, throughput, _front)


def at_equal_cost(first: Side, second: Side, cost: Metric, measured: Metric) -> Matched:
    """Two series compared, along their sizes, at every cost that both span."""
    return _match(first, second, cost, measured, _sizes)


def _match(first: Side, second: Side, equal: Metric, measured: Metric, build: Builder) -> Matched:
    labels = (first[0], second[0])
    samples = [Sample.of(points, equal, measured) for _, points in (first, second)]
    missing = [label for label, sample in zip(labels, samples, strict=True) if not sample.points]
    if missing:
        return Matched(equal, measured, *labels, (), f"{' and '.join(missing)}: no point has both numbers")
    scales = _Scale(equal.logarithmic, 1.0 if equal.lower else -1.0), _Scale(measured.logarithmic, 1.0)
    pair = _Pair(samples, scales, build)
    anchors = pair.anchors()
    if not anchors:
        return Matched(equal, measured, *labels, (), _no_overlap(equal, labels, samples))
    means = [sample.mean() for sample in samples]
    (low, high), remark = pair.interval(anchors)
    at = [means[side][0][index] for side, index in anchors]
    columns = (at, *(scales[1].back(values) for values in (pair.compare(means, anchors), low, high)))
    estimates = [
        Estimate(samples[side].points[index].name, *(float(x) for x in row[:2]), *(_or_none(x) for x in row[2:]))
        for (side, index), row in zip(anchors, zip(*columns, strict=True), strict=True)
    ]
    best_first = sorted(estimates, key=lambda estimate: estimate.at if equal.lower else -estimate.at)
    return Matched(equal, measured, *labels, tuple(best_first), remark)


@dataclass(frozen=True)
class _Pair:
    """Both sides' numbers, and how they become two curves that can be subtracted."""

    samples: list[Sample]
    scales: tuple[_Scale, _Scale]
    build: Builder

    def curves(self, values: list[tuple[Floats, Floats]]) -> list[_Curve]:
        return [self.build(self.scales[0].forward(x), self.scales[1].forward(y)) for x, y in values]

    def anchors(self) -> list[tuple[int, int]]:
        """(side, index) of each corner of either curve within the range of both."""
        curves = self.curves([sample.mean() for sample in self.samples])
        low, high = max(curve.x[0] for curve in curves), min(curve.x[-1] for curve in curves)
        return [
            (side, int(index))
            for side, curve in enumerate(curves)
            for index, x in zip(curve.points, curve.x, strict=True)
            if low <= x <= high
        ]

    def compare(self, values: list[tuple[Floats, Floats]], anchors: list[tuple[int, int]]) -> Floats:
        """The first curve less the second at each anchor's own x; ``nan`` where one does not reach."""
        first, second = self.curves(values)
        at = self.scales[0].forward(np.array([values[side][0][index] for side, index in anchors]))
        return first.at(at) - second.at(at)

    def interval(self, anchors: list[tuple[int, int]]) -> tuple[Floats, str]:
        """Bootstrap bounds [2, anchors] of the differences, ``nan`` where there are none, and why not.

        An anchor moves with its own point, so that what shifts every point alike (harder documents) is no error.
        """
        bounds = np.full((2, len(anchors)), np.nan)
        if not all(sample.resamples for sample in self.samples):
            return bounds, "no interval: it needs several seeds, or losses by document"
        (x, y), (u, v) = (sample.draw(REPLICATES, side) for side, sample in enumerate(self.samples))
        replicates = np.array([self.compare([(x[i], y[i]), (u[i], v[i])], anchors) for i in range(REPLICATES)])
        enough = np.isfinite(replicates).mean(axis=0) >= DEFINED
        if enough.any():
            tail = (100 - CONFIDENCE) / 2
            bounds[:, enough] = np.nanpercentile(replicates[:, enough], [tail, 100 - tail], axis=0)
        return bounds, "" if enough.all() else "no interval where resampling moves one family's curve out of reach"


def _front(cost: Floats, rate: Floats) -> _Curve:
    """The points that no other one beats: along them the rate rises with the cost."""
    order = np.lexsort((-rate, cost))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(rate[order])[:-1]))
    kept = order[rate[order] > best_before]
    return _Curve(cost[kept], rate[kept], kept)


def _sizes(x: Floats, y: Floats) -> _Curve:
    """All points; those of equal cost are averaged."""
    distinct, index, where = np.unique(x, return_index=True, return_inverse=True)
    return _Curve(distinct, np.bincount(where, y) / np.bincount(where), index)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _no_overlap(equal: Metric, labels: tuple[str, str], samples: list[Sample]) -> str:
    ranges = (f"{label} {_range(sample.mean()[0])}" for label, sample in zip(labels, samples, strict=True))
    return f"no value is reached by both ({equal.label}: {', '.join(ranges)})"


def _range(values: Floats) -> str:
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"
