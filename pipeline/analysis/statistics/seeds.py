"""Whether a difference between two models stands over their seeds, and if not, how many seeds would tell.

Both models are trained with the same seeds and scored on the same documents, so a difference is that of pairs: what a
seed or a document does to both models alike is no part of its error. A speed that is another seed's makes no pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.rows.points import Point, Row
from pipeline.analysis.statistics.ordering import neighbours
from pipeline.results.metrics import LOSS, Metric

SURE = 0.95
MOST_SEEDS = 100
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """How much the second model's number is above the first's, over ``seeds`` pairs, with a 95 % interval.

    What spans magnitudes is compared by the logarithm. ``by_seeds`` is the variance of one seed's difference,
    ``by_documents`` that of the mean difference for the choice of documents, of which there are ``documents``; both
    are 0 for what is no loss.
    """

    metric: Metric
    size: str
    first: str
    second: str
    seeds: int
    difference: float
    by_seeds: float
    by_documents: float = 0.0
    documents: int = 0

    @property
    def margin(self) -> float:
        """Half the width of the interval."""
        return self._margin(self.seeds)

    @property
    def stands(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.difference) > self.margin

    @property
    def needed(self) -> int | None:
        """With about how many seeds a difference as large would stand; ``None`` if with none up to 100."""
        return next((seeds for seeds in range(2, MOST_SEEDS + 1) if abs(self.difference) > self._margin(seeds)), None)

    def _margin(self, seeds: int) -> float:
        """By Student's t, the degrees of freedom of the sum of both variances being Welch and Satterthwaite's."""
        from scipy.stats import t

        parts = [(self.by_seeds / seeds, seeds - 1), (self.by_documents, self.documents - 1)]
        known = [(variance, freedom) for variance, freedom in parts if variance > 0 and freedom > 0]
        total = sum(variance for variance, _ in known)
        if not total:
            return 0.0
        freedom = total**2 / sum(variance**2 / freedom for variance, freedom in known)
        return float(t.ppf((1 + SURE) / 2, freedom)) * math.sqrt(total)


def contrasts(points: list[Point], metrics: Sequence[Metric]) -> list[Contrast]:
    """Of each pair of neighbouring block lengths that share two seeds or more, by metric."""
    compared = (contrast(first, second, metric) for metric in metrics for first, second in neighbours(points))
    return [known for known in compared if known is not None]


def contrast(first: Point, second: Point, metric: Metric) -> Contrast | None:
    """The second point less the first; ``None`` where they share fewer than two seeds that have the number."""
    sides = [_by_seed(metric.own(point.rows), metric) for point in (first, second)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if len(seeds) < 2:
        return None
    ours, theirs = ([side[seed] for seed in seeds] for side in sides)
    pairs = list(zip(ours, theirs, strict=True))
    differences = np.array([_number(other, metric) - _number(one, metric) for one, other in pairs])
    names = (metric, first.size, first.series, second.series, len(seeds), float(differences.mean()))
    spread = float(differences.var(ddof=1))
    if metric.key != LOSS.key or not all(row.evaluate.nats_by_document for pair in pairs for row in pair):
        return Contrast(*names, spread)
    return Contrast(*names, spread, *_by_documents(pairs))


def _by_documents(pairs: Sequence[tuple[Row, Row]]) -> tuple[float, int]:
    """The variance of the mean difference for the documents that it is taken on, and how many have a target.

    A loss is a ratio, of nats to targets; so a document's part is what its nats differ by beyond its share of targets.
    """
    nats = np.mean([np.subtract(b.evaluate.nats_by_document, a.evaluate.nats_by_document) for a, b in pairs], axis=0)
    targets = np.array(pairs[0][0].evaluate.targets_by_document, float)
    beyond = (nats - nats.sum() / targets.sum() * targets)[targets > 0]
    count = len(beyond)
    return (float(count / (count - 1) * (beyond**2).sum() / targets.sum() ** 2) if count > 1 else 0.0), count


def _by_seed(rows: Iterable[Row], metric: Metric) -> dict[int, Row]:
    return {row.cell.seed: row for row in rows if metric.value(row) is not None}


def _number(row: Row, metric: Metric) -> float:
    value = metric.value(row)
    assert value is not None
    return math.log(value) if metric.logarithmic else value
