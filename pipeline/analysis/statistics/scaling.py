"""Which scaling fits a study's points allow: loss against size, compute or tokens by series, and isoFLOP optima."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.analysis.rows.points import Point, series_of
from pipeline.analysis.statistics.fits import CannotFit, Parabola, PowerLaw, parabola, power_law
from pipeline.results.metrics import LOSS, PARAMETERS, TRAINING_FLOPS, TRAINING_TOKENS, Metric

SAME_COST = 1.1  # ratio of the costs of two runs up to which they count as equal


@dataclass(frozen=True)
class SeriesLaw:
    """The power law of a series' loss against ``x``; ``at`` says what is held fixed, if anything."""

    series: str
    x: Metric
    law: PowerLaw
    points: tuple[Point, ...]
    at: str = ""


@dataclass(frozen=True)
class IsoFlop:
    """The best size of a series at one training budget, in FLOPs."""

    series: str
    budget: float
    fit: Parabola
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Scaling:
    """The fits that a study's points allow; ``refusals`` says in words what the others lack."""

    laws: tuple[SeriesLaw, ...]
    optima: tuple[IsoFlop, ...]
    refusals: tuple[str, ...]


def scale(points: list[Point]) -> Scaling:
    """Every fit that the points trained from scratch allow, and what the others lack.

    Loss is fitted against parameters where all were trained on equal tokens, else against training FLOPs, and against
    tokens for a size that was trained on several amounts.
    """
    complete = [point for point in points if point.kind in ("vanilla", "block") and LOSS.of(point) is not None]
    laws: list[SeriesLaw] = []
    optima: list[IsoFlop] = []
    refused: dict[str, list[str]] = {}
    for series, x, at, members in _candidates(complete):
        try:
            laws.append(SeriesLaw(series, x, power_law(*_columns(members, x)), tuple(members), at))
        except CannotFit as error:
            refused.setdefault(f"{LOSS.label} against {x.label.lower()}: {error}", []).append(f"{series}{at}")
    for series, budget, members in _budgets(complete):
        try:
            optima.append(IsoFlop(series, budget, parabola(*_columns(members, PARAMETERS)), tuple(members)))
        except CannotFit as error:
            refused.setdefault(f"isoFLOP optimum at {budget:.3g} FLOPs: {error}", []).append(series)
    return Scaling(tuple(laws), tuple(optima), tuple(f"{why} ({', '.join(who)})." for why, who in refused.items()))


def _candidates(points: list[Point]) -> Iterator[tuple[str, Metric, str, list[Point]]]:
    x = PARAMETERS if len(_groups(points, TRAINING_TOKENS)) <= 1 else TRAINING_FLOPS
    for series in series_of(points):
        mine = [point for point in points if point.series == series]
        yield series, x, "", mine
        for same_size in _groups(mine, PARAMETERS) if x is TRAINING_FLOPS else []:
            if len(_groups(same_size, TRAINING_TOKENS)) > 1:
                yield series, TRAINING_TOKENS, f", size {same_size[0].size}", same_size


def _budgets(points: list[Point]) -> Iterator[tuple[str, float, list[Point]]]:
    """Groups of several sizes of a series that were trained for about the same FLOPs."""
    for series in series_of(points):
        for group in _groups([point for point in points if point.series == series], TRAINING_FLOPS):
            if len(_groups(group, PARAMETERS)) > 2:
                costs = [TRAINING_FLOPS.of(point) or 0.0 for point in group]
                yield series, sum(costs) / len(costs), group


def _groups(points: list[Point], metric: Metric) -> list[list[Point]]:
    """The points in order of a metric, split where it grows by more than :data:`SAME_COST`."""
    ordered = sorted(points, key=lambda point: metric.of(point) or 0.0)
    groups: list[list[Point]] = []
    for point in ordered:
        if groups and (metric.of(point) or 0.0) <= SAME_COST * (metric.of(groups[-1][0]) or 0.0):
            groups[-1].append(point)
        else:
            groups.append([point])
    return groups


def _columns(points: list[Point], x: Metric) -> tuple[list[float], list[float]]:
    """x and loss of every seed."""
    rows = [row for point in points for row in point.rows]
    return [x.value(row) or 0.0 for row in rows], [LOSS.value(row) or 0.0 for row in rows]
