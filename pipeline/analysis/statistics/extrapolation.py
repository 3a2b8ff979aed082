"""How much faster at losses that nobody reached: laws of loss and of speed over parameters, both carried further."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.analysis.rows.points import timed_points
from pipeline.analysis.statistics.fits import CannotFit, Coefficient, Floats, Power, coefficient, power
from pipeline.analysis.statistics.scaling import SeriesLaw
from pipeline.results.metrics import PARAMETERS, setting_metric

STEPS = (1.0, 2.0, 4.0)
"""Of how many times the parameters of the largest vanilla size; 1 can be held against what was measured."""


@dataclass(frozen=True)
class Predicted:
    """How many times as fast ``first`` generates as ``second`` of ``parameters``, at the loss which that one has.

    ``loss`` is in nats per token. ``needed`` are the parameters that ``first`` needs for it: infinite, and the ratio
    0, where its law never falls so far. Parameters are those without embeddings.
    """

    setting: str
    first: str
    second: str
    parameters: float
    loss: Coefficient
    needed: Coefficient
    ratio: Coefficient


@dataclass(frozen=True)
class _Series:
    """A series' laws over its parameters: of its loss, and of its tokens per second in each setting that has one."""

    law: SeriesLaw
    speeds: dict[str, Power]


def predict(laws: Sequence[SeriesLaw], settings: Sequence[str]) -> list[Predicted]:
    """Each series of block transformers against each vanilla one, of those with a law of loss and one of speed."""
    known = [_Series(law, _speeds(law, settings)) for law in laws if law.x is PARAMETERS]
    blocks, vanilla = ([each for each in known if each.law.points[0].kind == kind] for kind in ("block", "vanilla"))
    pairs = [(first, second) for first in blocks for second in vanilla]
    return [
        predicted
        for setting in settings
        for first, second in pairs
        if setting in first.speeds and setting in second.speeds
        for predicted in _between(setting, first, second)
    ]


def _speeds(law: SeriesLaw, settings: Sequence[str]) -> dict[str, Power]:
    found = {}
    for setting in settings:
        rate = setting_metric(setting, "tokens_per_second")
        measured = [(PARAMETERS.of(point), rate.of(point)) for point in timed_points(law.points)]
        known = [(x, y) for x, y in measured if x is not None and y is not None]
        try:
            found[setting] = power([x for x, _ in known], [y for _, y in known])
        except CannotFit:
            continue
    return found


def _between(setting: str, first: _Series, second: _Series) -> Iterator[Predicted]:
    for step in STEPS:
        parameters = step * second.law.law.high
        losses = _apart(second.law.law.at(parameters))
        needed = first.law.law.reached(losses)
        ratios = first.speeds[setting].at(needed) / _apart(second.speeds[setting].at(parameters))
        yield Predicted(
            setting, first.law.series, second.law.series, parameters, *map(coefficient, (losses, needed, ratios))
        )


def _apart(fits: Floats) -> Floats:
    """The fit, then its refits the other way round: those of two laws are to the same noise, and so are no pair."""
    return np.concatenate([fits[:1], fits[:0:-1]])
