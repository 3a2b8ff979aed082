"""A tuned model's optimum: whether it is bracketed, how sharp it is, and what the optima of several sizes predict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.results.search import Prediction, TrialResult
from pipeline.search.ladder import open_sides
from pipeline.study.recipe_space import NUMBERS, Point

FITTED = ("learning_rate", "matrix_learning_rate", "batch_size")
"""Keys that follow a power law of the size; of the others a predicted recipe has those of the largest model."""

LEAST = {"batch_size": 1}
"""The smallest value that a key can have, where that is not 0."""

LEAST_SIZES = 2
LEVEL = 0.95


def at_edge(best: TrialResult, trials: Sequence[TrialResult], varied: Mapping[str, Sequence[Any]]) -> list[str]:
    """The keys whose best value is the smallest or largest tried.

    A key with one choice is not tuned, and what is least by nature has nothing below it.
    """
    tried = [trial.point for trial in trials]
    keys = [key for key in NUMBERS if key in best.point and len(varied[key]) > 1]
    return [
        key
        for key in keys
        if any(side > 0 or best.point[key] != LEAST.get(key, 0) for side in open_sides(best.point, tried, key))
    ]


def cost_of_rate(best: TrialResult, trials: Sequence[TrialResult], factor: float) -> float | None:
    """Nats that ``factor`` times the best learning rate costs; ``None`` where the trials do not reach that rate.

    It is read off the complete trials whose other keys are the best's: of each rate the least loss, between rates a
    straight line over the rate's logarithm. Trials that were stopped early have no final loss and are left out.
    """
    if "learning_rate" not in best.point:
        return None
    curve: dict[float, float] = {}
    for trial in trials:
        if trial.state == "complete" and _others(trial.point) == _others(best.point):
            rate = math.log2(trial.point["learning_rate"])  # type: ignore[arg-type]
            curve[rate] = min(curve.get(rate, math.inf), trial.objective("loss"))
    rates, at = sorted(curve), math.log2(factor * best.point["learning_rate"])  # type: ignore[operator]
    if not rates[0] - 1e-3 <= at <= rates[-1] + 1e-3:
        return None
    return float(np.interp(at, rates, [curve[rate] for rate in rates])) - best.objective("loss")


def _others(point: Point) -> Point:
    return {key: value for key, value in point.items() if key != "learning_rate"}


@dataclass(frozen=True)
class Optimum:
    """The best point of a tuned model."""

    model: str
    parameters: int
    point: Point
    at_edge: list[str]


def predict(model: str, parameters: int, optima: Sequence[Optimum]) -> Prediction:
    """The recipe of a model of so many parameters, without embeddings, from the optima of other sizes.

    Each key of :data:`FITTED` that they all have follows its power law; the other keys are the largest model's.
    """
    ordered = sorted(optima, key=lambda optimum: optimum.parameters)
    point = dict(ordered[-1].point)
    intervals: dict[str, list[float]] = {}
    for key in FITTED:
        if all(key in optimum.point for optimum in ordered):
            values: list[Any] = [optimum.point[key] for optimum in ordered]
            value, *interval = power_law([optimum.parameters for optimum in ordered], values, parameters)
            point[key] = max(round(value), 1) if type(values[-1]) is int else _digits(value)
            intervals |= {key: [_digits(bound) for bound in interval]} if interval else {}
    edges = list(dict.fromkeys(key for optimum in ordered for key in optimum.at_edge))
    return Prediction(model, [optimum.model for optimum in ordered], point, intervals, edges)


def power_law(sizes: Sequence[float], optima: Sequence[float], at: float) -> tuple[float, ...]:
    """``scale * size ** exponent`` through the optima, at another size: the value, and its 95 % prediction interval.

    Least squares on the logarithms. The interval is that of one more optimum (Student's t); with two sizes there is
    none, since nothing tells how far optima lie from the line.
    """
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(optima, float))
    centre, spread = x.mean(), float(((x - x.mean()) ** 2).sum())
    slope = float(((x - centre) * y).sum() / spread)
    value, distance = float(y.mean() + slope * (np.log(at) - centre)), float(np.log(at) - centre)
    if len(x) <= LEAST_SIZES:
        return (math.exp(value),)
    from scipy.stats import t

    residuals = y - y.mean() - slope * (x - centre)
    noise = math.sqrt(float((residuals**2).sum()) / (len(x) - 2) * (1 + 1 / len(x) + distance**2 / spread))
    half = float(t.ppf(0.5 + LEVEL / 2, len(x) - 2)) * noise
    return math.exp(value), math.exp(value - half), math.exp(value + half)


def _digits(value: float) -> float:
    """Two digits: optima are known no better than that."""
    return float(f"{value:.2g}")
