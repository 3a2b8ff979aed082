"""Two numbers of several points, and how they vary.

Over seeds, over the held-out documents that losses average, and over the repeats of the timing that rates are from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.rows import timing
from pipeline.analysis.rows.points import Point
from pipeline.results.metrics import LOSS, Metric

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """One number of each point, by seed. Of losses by document also ``nats`` [seeds, documents], and their targets.

    ``errors`` are each seed's standard error over the repeats of its timing, as a share; 0 for what is not timed.
    A seed whose speed is another's has no number of its own here: a timing counts once, so that more seeds make its
    error no smaller.
    """

    seeds: list[Floats]
    errors: list[Floats]
    nats: list[Floats] | None = None
    targets: Floats | None = None

    @classmethod
    def of(cls, points: Sequence[Point], metric: Metric) -> Column:
        own = [metric.own(point.rows) for point in points]
        seeds = [np.array([metric.value(row) for row in rows], float) for rows in own]
        errors = [np.array([timing.error(row, metric) for row in rows]) for rows in own]
        rows = [row for point in points for row in point.rows]
        if metric.key != LOSS.key or not rows or not all(row.evaluate.nats_by_document for row in rows):
            return cls(seeds, errors)
        nats = [np.array([row.evaluate.nats_by_document for row in point.rows]) for point in points]
        return cls(seeds, errors, nats, np.array(rows[0].evaluate.targets_by_document, float))

    def mean(self) -> Floats:
        return np.array([seeds.mean() for seeds in self.seeds])

    def draw(self, drawn: list[NDArray[np.int64]], timed: np.random.Generator) -> Floats:
        """Means [replicates, points] over each point's seeds ``drawn`` [replicates, seeds], each ``timed`` anew.

        Where fewer seeds were timed than trained, their timings are drawn apart.
        """
        if self.nats is None or self.targets is None:
            drawn = [
                index if index.shape[1] == len(seeds) else timed.integers(len(seeds), size=(len(index), len(seeds)))
                for seeds, index in zip(self.seeds, drawn, strict=True)
            ]
            again = (
                np.exp(errors[index] * timed.normal(size=index.shape))
                for errors, index in zip(self.errors, drawn, strict=True)
            )
            means = [
                (seeds[index] * factor).mean(axis=1)
                for seeds, index, factor in zip(self.seeds, drawn, again, strict=True)
            ]
            return np.stack(means, axis=1)
        times = _document_times(len(drawn[0]), len(self.targets))
        sums = ((nats @ times.T).T for nats in self.nats)
        means = [np.take_along_axis(s, index, axis=1).mean(axis=1) for s, index in zip(sums, drawn, strict=True)]
        return np.stack(means, axis=1) / (times @ self.targets)[:, None]


@dataclass(frozen=True)
class Sample:
    """Two numbers of each point."""

    points: tuple[Point, ...]
    x: Column
    y: Column

    @classmethod
    def of(cls, points: Sequence[Point], x: Metric, y: Metric) -> Sample:
        """The points that have both numbers."""
        complete = tuple(point for point in points if x.of(point) is not None and y.of(point) is not None)
        return cls(complete, Column.of(complete, x), Column.of(complete, y))

    @property
    def resamples(self) -> bool:
        """Whether there is anything to draw from: documents, or seeds of each point that differ in one number."""
        columns = (self.x, self.y)
        documents = any(column.nats is not None for column in columns)
        return documents or any(all(len(set(seeds)) > 1 for seeds in column.seeds) for column in columns)

    def mean(self) -> tuple[Floats, Floats]:
        """x and y of each point [points], the mean over its seeds."""
        return self.x.mean(), self.y.mean()

    def draw(self, replicates: int, seed: int) -> tuple[Floats, Floats]:
        """x and y [replicates, points] of the bootstrap: for each point its seeds drawn anew, and documents for all.

        A rate varies with its timing too, as much as the timing's repeats did.

        The documents drawn are the same for every sample, since every point is scored on the same ones.
        """
        generator = np.random.default_rng([1, seed])
        counts = [len(point.rows) for point in self.points]
        drawn = [generator.integers(seeds, size=(replicates, seeds)) for seeds in counts]
        timed = np.random.default_rng([2, seed])
        return self.x.draw(drawn, timed), self.y.draw(drawn, timed)


def _document_times(replicates: int, documents: int) -> Floats:
    """How often each document is drawn [replicates, documents]."""
    chances = np.full(documents, 1 / documents)
    return np.random.default_rng(0).multinomial(documents, chances, size=replicates).astype(float)
