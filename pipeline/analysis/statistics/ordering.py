"""Whether the study reproduces the paper's order: at equal size, loss and throughput both rise with block length.

Paper, section 3.4 and figure 4a: vanilla has the lowest loss, and each longer block a higher one, generated faster.
Section 3.3 and figure 3b: the longer the block, the more of the layers the best allocation gives the token decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from pipeline.analysis.rows.points import Point
from pipeline.results.metrics import LOSS, Metric
from pipeline.results.records import PretrainResult


def _token_decoder_share(record: PretrainResult) -> float | None:
    block, token = (record.parameters.get(group, 0) for group in ("block_decoder", "token_decoder"))
    return token / (block + token) if block and token else None


SHARE = Metric("token_decoder_share", "Token decoder's share in the best allocation", "pretrain", _token_decoder_share)
ALLOCATIONS = 0.3  # spread of the shares from which a study compares allocations


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
        """Whether the second value is the greater one."""
        return self.after > self.before

    def __str__(self) -> str:
        relation = "below" if self.holds else "not below"
        return f"size {self.size}: {self.first} ({self.before:.4g}) is {relation} {self.second} ({self.after:.4g})"


def compare(points: list[Point], metric: Metric = LOSS) -> list[Comparison]:
    """Each pair of neighbours that both have the metric, for each size and block variant of the study."""
    return [
        Comparison(metric, first.size, first.series, second.series, before, after)
        for first, second in neighbours(points)
        if (before := metric.of(first)) is not None and (after := metric.of(second)) is not None
    ]


def compare_best_allocations(points: list[Point]) -> list[Comparison]:
    """The lowest-loss allocation of neighbouring block lengths; nothing for a study that does not vary it."""
    return [
        Comparison(SHARE, first.size, first.series, second.series, before, after)
        for size in dict.fromkeys(point.size for point in points)
        for first, second in pairwise(_best_allocations([point for point in points if point.size == size]))
        if (before := SHARE.of(first)) is not None and (after := SHARE.of(second)) is not None
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


def neighbours(points: list[Point]) -> Iterator[tuple[Point, Point]]:
    """Each two that follow one another in the order, for each size and block variant."""
    for size in dict.fromkeys(point.size for point in points):
        same = [point for point in points if point.size == size]  # uptrained models had other training
        vanilla = [point for point in same if point.kind == "vanilla"]
        for variant in dict.fromkeys(point.cell.variant for point in same if point.kind == "block"):
            block = [point for point in same if point.kind == "block" and point.cell.variant == variant]
            yield from pairwise(vanilla + sorted(block, key=lambda point: point.cell.block_length or 0))


def _best_allocations(points: list[Point]) -> list[Point]:
    """The point of lowest loss at each block length whose points differ in their allocation, by block length."""
    best = []
    for length in sorted({point.cell.block_length or 0 for point in points if point.kind == "block"}):
        same = [point for point in points if point.kind == "block" and point.cell.block_length == length]
        shares = [share for point in same if (share := SHARE.of(point)) is not None]
        scored = [(loss, point.name, point) for point in same if (loss := LOSS.of(point)) is not None]
        if scored and shares and max(shares) - min(shares) > ALLOCATIONS:
            best.append(min(scored)[2])
    return best
