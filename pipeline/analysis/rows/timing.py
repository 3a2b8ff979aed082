"""How far a rate spreads over the repeats of its timing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.analysis.rows.points import Point, Row
from pipeline.results.metrics import Metric, setting_metric

RANGES = (1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078)
"""The expected range of 2, 3, ..., 10 normal numbers in standard deviations (d2 of control charts)."""
MEDIAN = 1.2533  # the error of a median in that of a mean, of many normal numbers; of few it is less


def repeats(row: Row, metric: Metric) -> int:
    """From how many timings the number is; 0 for what is no rate of generation."""
    return row.benchmark.repeats if _range(row, metric) is not None else 0


def deviation(row: Row, metric: Metric) -> float:
    """The standard deviation of one timing, as a share of the rate, from the range of all; 0 where it is not known."""
    count, width = repeats(row, metric), _range(row, metric)
    return width / RANGES[min(count, len(RANGES) + 1) - 2] if width is not None and count > 1 else 0.0


def error(row: Row, metric: Metric) -> float:
    """The standard error of the rate, which is the median timing's, as a share of it; 0 where it is not known."""
    count = repeats(row, metric)
    return deviation(row, metric) * (MEDIAN if count > 2 else 1.0) / math.sqrt(max(count, 1))


def spread(point: Point, metric: Metric) -> float | None:
    """The standard deviation over seeds, or where there is one seed over the repeats of its timing; else ``None``."""
    over_seeds, rows = metric.spread(point), metric.own(point.rows)
    if over_seeds is not None or len(rows) > 1:
        return over_seeds
    value = metric.of(point)
    return value * deviation(rows[0], metric) or None if value is not None else None


def borrowed(rows: Sequence[Row]) -> list[str]:
    """A sentence on the cells whose speeds were measured on another seed, if there are any."""
    names = ", ".join(row.name for row in rows if row.borrows)
    return [f"Not timed, so these have the speeds of another seed of the same model: {names}."] if names else []


def _range(row: Row, metric: Metric) -> float | None:
    """(max - min) / median of the timings behind a rate of generation."""
    spreads = {
        setting_metric(name, "tokens_per_second").key: measured.spread
        for name, measured in row.benchmark.settings.items()
    }
    return spreads.get(metric.key)
