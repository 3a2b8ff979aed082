"""Two numbers of several points, and how they vary: over seeds, and over the held-out documents that losses average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.metrics import LOSS, Metric
from pipeline.analysis.table import Point

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """``x`` and ``y`` of each point, by seed; where x is the loss, ``nats`` [seeds, documents] of each point."""

    points: tuple[Point, ...]
    x: list[Floats]
    y: list[Floats]
    nats: list[Floats] | None = None
    targets: Floats | None = None

    @classmethod
    def of(cls, points: Sequence[Point], x: Metric, y: Metric) -> Sample:
        """The points that have both numbers."""
        complete = tuple(point for point in points if x.of(point) is not None and y.of(point) is not None)
        columns = [[np.array([metric.read(row) for row in p.rows], float) for p in complete] for metric in (x, y)]
        rows = [row for point in complete for row in point.rows]
        if x.key != LOSS.key or not rows or not all(row.evaluate.nats_by_document for row in rows):
            return cls(complete, columns[0], columns[1])
        nats = [np.array([row.evaluate.nats_by_document for row in point.rows]) for point in complete]
        return cls(complete, columns[0], columns[1], nats, np.array(rows[0].evaluate.targets_by_document, float))

    @property
    def resamples(self) -> bool:
        """Whether there is anything to draw from."""
        return self.nats is not None or all(len(seeds) > 1 for seeds in self.x)

    def mean(self) -> tuple[Floats, Floats]:
        """x and y of each point [points], the mean over its seeds."""
        return np.array([seeds.mean() for seeds in self.x]), np.array([seeds.mean() for seeds in self.y])

    def draw(self, replicates: int, seed: int) -> tuple[Floats, Floats]:
        """x and y [replicates, points] of the bootstrap: for each point its seeds drawn anew, and documents for all.

        The documents drawn are the same for every sample, since every point is scored on the same ones.
        """
        generator = np.random.default_rng([1, seed])
        drawn = [generator.integers(len(values), size=(replicates, len(values))) for values in self.x]
        y = [values[index].mean(axis=1) for values, index in zip(self.y, drawn, strict=True)]
        if self.nats is None or self.targets is None:
            x = [values[index].mean(axis=1) for values, index in zip(self.x, drawn, strict=True)]
        else:
            times = _document_times(replicates, len(self.targets))
            sums = ((nats @ times.T).T for nats in self.nats)
            means = (np.take_along_axis(s, index, axis=1).mean(axis=1) for s, index in zip(sums, drawn, strict=True))
            x = [mean / (times @ self.targets) for mean in means]
        return np.stack(x, axis=1), np.stack(y, axis=1)


def _document_times(replicates: int, documents: int) -> Floats:
    """How often each document is drawn [replicates, documents]."""
    chances = np.full(documents, 1 / documents)
    return np.random.default_rng(0).multinomial(documents, chances, size=replicates).astype(float)
