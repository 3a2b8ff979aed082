"""How much faster at equal quality, and at equal cost: curves interpolated where both exist, never beyond.

Equal quality: each family's non-dominated points of quality and throughput (or training FLOPs), their logarithm linear
in loss between them, or one of its series' (a block length over its sizes), where that is better in between.
Equal cost: a series' sizes in order of training FLOPs or bytes per sample, linear in the cost's logarithm between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.rows.points import Point
from pipeline.analysis.statistics.bootstrap import Sample
from pipeline.base.dominance import unbeaten
from pipeline.results.metrics import Metric

Floats = NDArray[np.float64]
REPLICATES = 500
CONFIDENCE = 95.0
DEFINED = 0.8  # share of the replicates that must reach a value for it to have an interval


@dataclass(frozen=True)
class Estimate:
    """A comparison where both have the value ``at`` of what is held equal, the value of the point ``anchor``.

    ``low`` and ``high`` bound it with 95 % confidence. ``gap`` is how far apart, in what is held equal, the two points
    are between which the other side is interpolated.
    """

    anchor: str
    at: float
    value: float
    gap: float
    low: float | None = None
    high: float | None = None

    def numbers(self) -> dict[str, float]:
        """As report.json has a ratio at equal loss, without the bounds that it lacks."""
        values = {"loss": self.at, "ratio": self.value, "low": self.low, "high": self.high}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class Matched:
    """``measured`` of ``first`` against that of ``second`` where both have the same value of ``equal``.

    ``estimates`` holds one for each point of either curve within the range that both reach, from the best value of
    ``equal``: a ratio where ``measured`` is logarithmic, else a difference. Between two points the comparison lies
    between theirs. ``remark`` says why there is no estimate, or no interval. ``reach`` are the least and the greatest
    value of ``equal`` on either curve.
    """

    equal: Metric
    measured: Metric
    first: str
    second: str
    estimates: tuple[Estimate, ...]
    remark: str = ""
    reach: tuple[tuple[float, float], ...] = ()

    @property
    def best(self) -> Estimate | None:
        """The estimate at the best value of ``equal`` that both reach."""
        return self.estimates[0] if self.estimates else None


@dataclass(frozen=True)
class Quality:
    """One family's speed-up over another at equal loss, in one setting; ``limits`` compares their rooflines instead."""

    setting: str
    matched: Matched
    limits: Matched


@dataclass(frozen=True)
class _Scale:
    """A metric's values to what is interpolated: logarithms where it is logarithmic, times ``sign``."""

    logarithmic: bool
    sign: float

    def forward(self, values: Floats) -> Floats:
        return self.sign * (np.log(values) if self.logarithmic else values)

    def back(self, differences: Floats) -> Floats:
        """A difference of scaled values as a ratio or a difference of the metric's own."""
        return np.asarray(np.exp(self.sign * differences) if self.logarithmic else self.sign * differences)


@dataclass(frozen=True)
class _Curves:
    """A curve for each replicate: linear between the corners, the ``kept`` of ``x``, ``y`` [replicates, points].

    Where one of ``parts`` is higher, the curve is that part.
    """

    x: Floats
    y: Floats
    kept: NDArray[np.bool_]
    parts: tuple[_Curves, ...] = ()

    def at(self, x: Floats) -> Floats:
        """y at x [replicates, places], ``nan`` where the curve does not reach."""
        return np.asarray(np.fmax.reduce([self._between(x), *(part.at(x) for part in self.parts)]))

    def gap(self, x: float) -> float:
        """How far apart the corners are between which the first replicate's curve runs at a place that it reaches."""
        curves = (self, *self.parts)
        heights = [np.nan_to_num(curve._between(np.array([[x]]))[0, 0], nan=-np.inf) for curve in curves]
        highest = curves[int(np.argmax(heights))]
        corners = highest.x[0][highest.kept[0]]
        return float(corners[corners >= x].min() - corners[corners <= x].max())

    def _between(self, x: Floats) -> Floats:
        mine, kept, x_ = self.x[:, None], self.kept[:, None], x[:, :, None]
        before = np.where(kept & (mine <= x_), mine, -np.inf)
        after = np.where(kept & (mine >= x_), mine, np.inf)
        left, right = before.argmax(axis=2), after.argmin(axis=2)
        low, high = (np.take_along_axis(self.x, index, axis=1) for index in (left, right))
        share = np.divide(x - low, high - low, out=np.zeros_like(x), where=high > low)
        ends = (np.take_along_axis(self.y, index, axis=1) for index in (left, right))
        reached = np.isfinite(before.max(axis=2)) & np.isfinite(after.min(axis=2))
        return np.where(reached, (1 - share) * next(ends) + share * next(ends), np.nan)


Side = tuple[str, Sequence[Point]]
Builder = Callable[[Floats, Floats, Sequence[str]], _Curves]


def at_equal_quality(first: Side, second: Side, quality: Metric, measured: Metric, intervals: bool = True) -> Matched:
    """The ratio of two families' throughput or cost, along their fronts, at every quality that both reach."""
    return _match(first, second, quality, measured, _front, intervals)


def at_equal_cost(first: Side, second: Side, cost: Metric, measured: Metric) -> Matched:
    """Two series compared, along their sizes, at every cost that both span."""
    return _match(first, second, cost, measured, _sizes)


def _match(
    first: Side, second: Side, equal: Metric, measured: Metric, build: Builder, intervals: bool = True
) -> Matched:
    labels = (first[0], second[0])
    samples = [Sample.of(points, equal, measured) for _, points in (first, second)]
    missing = [label for label, sample in zip(labels, samples, strict=True) if not sample.points]
    if missing:
        return Matched(equal, measured, *labels, (), f"{' and '.join(missing)}: no point has both numbers")
    scales = (
        _Scale(equal.logarithmic, 1.0 if equal.lower else -1.0),
        _Scale(measured.logarithmic, -1.0 if measured.lower else 1.0),
    )
    pair = _Pair(samples, scales, build)
    anchors = pair.anchors()
    if not anchors:
        return Matched(equal, measured, *labels, (), _no_overlap(equal, labels, samples), pair.reach())
    means = pair.means()
    bounds, remark = pair.interval(anchors) if intervals else (np.full((2, len(anchors)), np.nan), "")
    low, high = np.sort(scales[1].back(bounds), axis=0)
    at = [means[side][0][0, index] for side, index in anchors]
    columns = (at, scales[1].back(pair.compare(means, anchors)[0]), pair.gaps(anchors), low, high)
    estimates = [
        Estimate(samples[side].points[index].name, *(float(x) for x in row[:3]), *(_or_none(x) for x in row[3:]))
        for (side, index), row in zip(anchors, zip(*columns, strict=True), strict=True)
    ]
    best_first = sorted(estimates, key=lambda estimate: estimate.at if equal.lower else -estimate.at)
    return Matched(equal, measured, *labels, tuple(best_first), remark, pair.reach())


Values = tuple[Floats, Floats]


@dataclass(frozen=True)
class _Pair:
    """Both sides' numbers [replicates, points], and how they become curves that can be subtracted."""

    samples: list[Sample]
    scales: tuple[_Scale, _Scale]
    build: Builder

    def means(self) -> list[Values]:
        """The one replicate that was measured."""
        return [(x[None], y[None]) for x, y in (sample.mean() for sample in self.samples)]

    def anchors(self) -> list[tuple[int, int]]:
        """(side, index) of each corner of either curve within the range of both."""
        curves = self._curves(self.means())
        corners = [curve.x[curve.kept] for curve in curves]
        low, high = max(x.min() for x in corners), min(x.max() for x in corners)
        inside = (np.flatnonzero(curve.kept[0] & (curve.x[0] >= low) & (curve.x[0] <= high)) for curve in curves)
        return [(side, int(index)) for side, columns in enumerate(inside) for index in columns]

    def reach(self) -> tuple[tuple[float, float], ...]:
        """The least and the greatest value of what is held equal on either curve."""
        values = (x[0][curve.kept[0]] for (x, _), curve in zip(self.means(), self._curves(self.means()), strict=True))
        return tuple((float(corners.min()), float(corners.max())) for corners in values)

    def gaps(self, anchors: list[tuple[int, int]]) -> list[float]:
        """Between how distant points the side that has not the anchor is interpolated."""
        curves = self._curves(self.means())
        return [curves[1 - side].gap(curves[side].x[0, index]) for side, index in anchors]

    def compare(self, values: list[Values], anchors: list[tuple[int, int]]) -> Floats:
        """The first curve less the second at each anchor's own x [replicates, anchors]; ``nan`` beyond one's reach."""
        at = self.scales[0].forward(np.stack([values[side][0][:, index] for side, index in anchors], axis=1))
        first, second = (curve.at(at) for curve in self._curves(values))
        return np.asarray(first - second)

    def _curves(self, values: list[Values]) -> list[_Curves]:
        series = ([point.series for point in sample.points] for sample in self.samples)
        scaled = ((self.scales[0].forward(x), self.scales[1].forward(y)) for x, y in values)
        return [self.build(x, y, names) for (x, y), names in zip(scaled, series, strict=True)]

    def interval(self, anchors: list[tuple[int, int]]) -> tuple[Floats, str]:
        """Bootstrap bounds [2, anchors] of the differences, ``nan`` where there are none, and why not.

        An anchor moves with its own point, so that what shifts every point alike (harder documents) is no error.
        """
        bounds = np.full((2, len(anchors)), np.nan)
        if not all(sample.resamples for sample in self.samples):
            return bounds, "no interval: it needs several seeds, or losses by document"
        drawn = [sample.draw(REPLICATES, side) for side, sample in enumerate(self.samples)]
        replicates = self.compare(drawn, anchors)
        enough = np.isfinite(replicates).mean(axis=0) >= DEFINED
        if enough.any():
            tail = (100 - CONFIDENCE) / 2
            bounds[:, enough] = np.nanpercentile(replicates[:, enough], [tail, 100 - tail], axis=0)
        return bounds, "" if enough.all() else "no interval where resampling moves one family's curve out of reach"


def _front(cost: Floats, rate: Floats, series: Sequence[str]) -> _Curves:
    """The points that no other one beats, or one series' own where that is better: it may bulge between its sizes."""
    names = list(dict.fromkeys(series))
    columns = [[at for at, other in enumerate(series) if other == name] for name in names if len(names) > 1]
    parts = (_Curves(cost[:, mine], rate[:, mine], _unbeaten(cost[:, mine], rate[:, mine])) for mine in columns)
    return _Curves(cost, rate, _unbeaten(cost, rate), tuple(parts))


def _unbeaten(cost: Floats, rate: Floats) -> NDArray[np.bool_]:
    """Which points no other one equals or beats in both; the first of equal ones."""
    both = np.stack([cost, -rate], axis=2)
    first = (both[:, :, None] == both[:, None]).all(axis=3).argmax(axis=1) == np.arange(cost.shape[1])
    return np.asarray(unbeaten(both) & first)


def _sizes(x: Floats, y: Floats, series: Sequence[str]) -> _Curves:
    """All points; those of equal cost are averaged."""
    same = x[:, :, None] == x[:, None]
    first = same.argmax(axis=1) == np.arange(x.shape[1])
    return _Curves(x, (same * y[:, :, None]).sum(axis=1) / same.sum(axis=1), first)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _no_overlap(equal: Metric, labels: tuple[str, str], samples: list[Sample]) -> str:
    ranges = (f"{label} {_range(sample.mean()[0])}" for label, sample in zip(labels, samples, strict=True))
    return f"no value is reached by both ({equal.label}: {', '.join(ranges)})"


def _range(values: Floats) -> str:
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"
