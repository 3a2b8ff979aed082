"""Whether the study reproduces the paper's order: at equal size, loss and throughput both rise with block length.

Paper, section 3.4 and figure 4a: vanilla has the lowest loss, and each longer block a higher one, generated faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from pipeline.analysis.metrics import LOSS, Metric
from pipeline.analysis.table import Point


@dataclass(frozen=True)
class Comparison:
    """Two neighbours of the order vanilla, L=1, L=2, ...: the second is expected to have the greater value."""

    metric: Metric
    size: str
    first: str
    second: str
    before: float
    after: float

    @property
    def holds(self) -> bool:
        return self.after > self.before

    def __str__(self) -> str:
        relation = "below" if self.holds else "not below"
        return f"size {self.size}: {self.first} ({self.before:.4g}) is {relation} {self.second} ({self.after:.4g})"


def compare(points: list[Point], metric: Metric = LOSS) -> list[Comparison]:
    """Each pair of neighbours that both have the metric, for each size and block variant of the study."""
    return [
        Comparison(metric, first.size, first.series, second.series, before, after)
        for ladder in _ladders(points)
        for first, second in pairwise(ladder)
        if (before := metric.of(first)) is not None and (after := metric.of(second)) is not None
    ]


def summary(comparisons: list[Comparison]) -> str:
    """One sentence: how many hold, and which do not."""
    if not comparisons:
        return "The study has no two block lengths of one size to compare."
    failed = [str(comparison) for comparison in comparisons if not comparison.holds]
    held = len(comparisons) - len(failed)
    exceptions = f", but {'; '.join(failed)}" if failed else ""
    return (
        f"{comparisons[0].metric.label}: {held} of {len(comparisons)} comparisons of neighbouring block lengths "
        f"are ordered as in the paper{exceptions}."
    )


def _ladders(points: list[Point]) -> Iterator[list[Point]]:
    for size in dict.fromkeys(point.size for point in points):
        same = [point for point in points if point.size == size]  # uptrained models had other training
        vanilla = [point for point in same if point.family == "vanilla"]
        for variant in dict.fromkeys(point.cell.variant for point in same if point.family == "block"):
            block = [point for point in same if point.family == "block" and point.cell.variant == variant]
            yield vanilla + sorted(block, key=lambda point: point.cell.block_length or 0)
