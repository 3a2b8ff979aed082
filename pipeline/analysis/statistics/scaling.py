"""Which scaling fits a study's points allow: loss against size, compute or tokens by series, and isoFLOP optima."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.analysis.rows.points import Point, series_of
from pipeline.analysis.statistics.fits import CannotFit, HeldOut, Parabola, PowerLaw, held_out, parabola, power_law
from pipeline.results.metrics import LOSS, PARAMETERS, TRAINING_FLOPS, TRAINING_TOKENS, Metric

SAME_COST = 1.1  # ratio of the costs of two runs up to which they count as equal


@dataclass(frozen=True)
class SeriesLaw:
    """The power law of a series' loss against ``x``; ``at`` says what is held fixed, if anything.

    ``test`` is the law without the greatest x, beside what was measured there; ``None`` where it could not be fitted.
    """

    series: str
    x: Metric
    law: PowerLaw
    points: tuple[Point, ...]
    at: str = ""
    test: HeldOut | None = None

    @property
    def largest(self) -> Point:
        """The point of the greatest x."""
        return max(self.points, key=lambda point: self.x.of(point) or 0.0)


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

    Loss is fitted against parameters where all sizes were trained on equal tokens, else against training FLOPs; of a
    size that was trained on several amounts the longest counts there, and all of them in a fit against tokens.
    """
    complete = [point for point in points if point.kind in ("vanilla", "block") and LOSS.of(point) is not None]
    laws: list[SeriesLaw] = []
    optima: list[IsoFlop] = []
    refused: dict[str, list[str]] = {}
    for series, x, at, members in _candidates(complete):
        try:
            columns = _columns(members, x)
            laws.append(SeriesLaw(series, x, power_law(*columns), tuple(members), at, _held_out(*columns)))
        except CannotFit as error:
            refused.setdefault(f"{LOSS.label} against {x.label.lower()}: {error}", []).append(f"{series}{at}")
    for series, budget, members in _budgets(complete):
        try:
            optima.append(IsoFlop(series, budget, parabola(*_columns(members, PARAMETERS)), tuple(members)))
        except CannotFit as error:
            refused.setdefault(f"isoFLOP optimum at {budget:.3g} FLOPs: {error}", []).append(series)
    return Scaling(tuple(laws), tuple(optima), tuple(f"{why} ({', '.join(who)})." for why, who in refused.items()))


def _held_out(x: list[float], y: list[float]) -> HeldOut | None:
    try:
        return held_out(x, y)
    except CannotFit:
        return None


def held_out_in_words(law: SeriesLaw) -> str:
    """One sentence: how far the law without its greatest x is from what was measured there."""
    test = law.test
    if test is None:
        return f"{law.series}{law.at}: no law fits without {law.largest.name}, so nothing tests the one with it."
    known = test.low is not None and test.high is not None
    interval = f" (95 % interval {test.low:.3f} to {test.high:.3f})" if known else ""
    relative = f", {test.relative:.2g} times the interval's half-width" if test.relative is not None else ""
    step = f", where the step to it from the point before brought {test.observed - test.before:+.3f}"
    return (
        f"{law.series}{law.at}: fitted without {law.largest.name}, the law of {law.x.label.lower()} predicts "
        f"{test.predicted:.3f}{interval} where {test.observed:.3f} was measured; it misses by {test.miss:+.3f} nats "
        f"per token{relative or step}."
    )


def _candidates(points: list[Point]) -> Iterator[tuple[str, Metric, str, list[Point]]]:
    """Each series over its sizes, of each size the most tokens; and each size over its tokens."""
    longest = [point for same in _sizes(points) for point in _groups(same, TRAINING_TOKENS)[-1]]
    x = PARAMETERS if len(_groups(longest, TRAINING_TOKENS)) <= 1 else TRAINING_FLOPS
    for series in series_of(points):
        yield series, x, "", [point for point in longest if point.series == series]
        for same in _groups([point for point in points if point.series == series], PARAMETERS):
            if len(_groups(same, TRAINING_TOKENS)) > 1:
                yield series, TRAINING_TOKENS, f", size {same[0].size}", same


def _sizes(points: list[Point]) -> list[list[Point]]:
    """The points of each series and size."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.series, point.size), []).append(point)
    return list(groups.values())


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
