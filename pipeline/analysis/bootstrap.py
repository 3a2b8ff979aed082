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
    """``x`` and ``y`` of each point, by seed. ``nats`` holds summed losses by point, seed and document where x is the loss."""

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
        if x.key != LOSS.key or not all(row.evaluate.nats_by_document for row in rows):
            return cls(complete, columns[0], columns[1])
        nats = [np.array([row.evaluate.nats_by_document for row in point.rows]) for point in complete]
        return cls(complete, columns[0], columns[1], nats, np.array(rows[0].evaluate.targets_by_document, float))

    @property
    def resamples(self) -> bool:
        """Whether there is anything to draw from."""
        return self.nats is not None or all(len(seeds) > 1 for seeds in self.x)

    def mean(self) -> tuple[Floats, Floats]:
        return np.array([seeds.mean() for seeds in self.x]), np.array([seeds.mean() for seeds in self.y])

    def draw(self, generator: np.random.Generator, document_seed: int) -> tuple[Floats, Floats]:
        """Seeds drawn with replacement for each point, documents once for all points of equal ``document_seed``."""
        seeds = [generator.integers(len(values), size=len(values)) for values in self.x]
        y = np.array([values[drawn].mean() for values, drawn in zip(self.y, seeds, strict=True)])
        if self.nats is None or self.targets is None:
            return np.array([values[drawn].mean() for values, drawn in zip(self.x, seeds, strict=True)]), y
        count = len(self.targets)
        times = np.bincount(np.random.default_rng(document_seed).integers(count, size=count), minlength=count)
        sums = [nats[drawn].mean(axis=0) @ times for nats, drawn in zip(self.nats, seeds, strict=True)]
        return np.array(sums) / (self.targets @ times), y
