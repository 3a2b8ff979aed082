"""Scaling fits: loss as a power law with an offset, and the optimum of an isoFLOP curve. Poor data is refused.

The power law is fitted as Hoffmann et al. 2022 (section 3.3) do: Huber loss on the logarithms, from a grid of starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
HUBER = 1e-3  # residuals of the logarithm past which the loss is linear
REPLICATES = 200
ITERATIONS = 150  # 96 % of resampled fits are then within 1 % of the loss that SLSQP reaches, or below it
STRETCHES = (1, 3, 10)  # of a step: far from the optimum, reweighted steps are short
TAIL = 2.5  # percent on either side of an interval
LEAST_POINTS = 4
LEAST_SPAN = 8.0  # ratio of the greatest to the least x of a power law
WIDEST_GAP = 2 / 3  # of the logarithmic span between neighbours


class CannotFit(ValueError):
    """There are too few points, or they are badly placed; the message says what is missing."""


@dataclass(frozen=True)
class Coefficient:
    """A fitted number and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True)
class PowerLaw:
    """``offset + scale * x ** -exponent``, fitted to x from ``low`` to ``high``.

    ``replicates`` [replicates, 3] holds (log offset, log of the falling term at ``centre``, exponent) of the fits to
    resampled noise, the first row the fit itself.
    """

    offset: Coefficient
    scale: Coefficient
    exponent: Coefficient
    low: float
    high: float
    centre: float
    replicates: Floats

    def predict(self, x: float) -> Coefficient:
        """The loss at x with its interval; outside ``low`` to ``high`` it is an extrapolation."""
        return _coefficient(np.exp(_log_law(self.replicates.T, np.log(x / self.centre))))

    def trained(self, x: float) -> bool:
        """Whether x lies within the fitted points."""
        return self.low <= x <= self.high


@dataclass(frozen=True)
class Parabola:
    """A quadratic in log x, and its optimum. ``at_edge``: the interval reaches past the points; more are needed there.

    ``coefficients`` are those of log (x / ``centre``), the highest power first.
    """

    optimum: Coefficient
    minimum: float
    at_edge: bool
    coefficients: Floats
    centre: float

    def at(self, x: ArrayLike) -> Floats:
        """The fitted value at each ``x``, in the units of the data."""
        return _quadratic(self.coefficients, np.log(np.asarray(x) / self.centre))


def power_law(x: ArrayLike, y: ArrayLike) -> PowerLaw:
    """Fit ``y = offset + scale * x ** -exponent``. Raises :class:`CannotFit`.

    Intervals are a parametric bootstrap whose noise has the residuals' size, itself uncertain with n - 3 degrees of
    freedom: with few points they are wide.
    """
    x, y = _positive(x), _positive(y)
    _check_placement(x)
    if y[np.argmax(x)] >= y[np.argmin(x)]:
        raise CannotFit("the loss does not fall from the least x to the greatest")
    centre = float(np.exp(np.log(x).mean()))
    log_x, log_y = np.log(x / centre), np.log(y)
    starts = _starts(log_x, log_y)
    found, losses = _minimize(starts, log_x, np.tile(log_y, (len(starts), 1)))
    best = found[np.argmin(losses)]
    noisy = _noisy(_log_law(best, log_x), log_y, degrees=len(x) - 3)
    refits, _ = _minimize(np.tile(best, (len(noisy), 1)), log_x, noisy)
    replicates = np.array([best, *refits])
    offsets, terms, exponents = replicates.T
    return PowerLaw(
        offset=_coefficient(np.exp(offsets)),
        scale=_coefficient(np.exp(terms) * centre**exponents),
        exponent=_coefficient(exponents),
        low=float(x.min()),
        high=float(x.max()),
        centre=centre,
        replicates=replicates,
    )


def parabola(x: ArrayLike, y: ArrayLike) -> Parabola:
    """Fit ``y`` by a quadratic in log x, as for isoFLOP curves. Raises :class:`CannotFit`."""
    x, y = _positive(x), _positive(y)
    _require_distinct(x)
    centre = float(np.exp(np.log(x).mean()))
    log_x = np.log(x / centre)
    best = np.asarray(np.polyfit(log_x, y, 2), float)
    if best[0] <= 0:
        raise CannotFit("the points have no minimum: the parabola opens downwards")
    refits = [np.polyfit(log_x, noisy, 2) for noisy in _noisy(_quadratic(best, log_x), y, len(x) - 3)]
    optimum = _coefficient(centre * np.exp([_vertex(fit) for fit in (best, *refits)]))
    return Parabola(
        optimum=optimum,
        minimum=float(np.polyval(best, _vertex(best))),
        at_edge=not x.min() < optimum.low <= optimum.high < x.max(),
        coefficients=best,
        centre=centre,
    )


def _quadratic(fit: Floats, log_x: Floats) -> Floats:
    return np.asarray(np.polyval(fit, log_x), float)


def _vertex(fit: Floats) -> float:
    """Where a quadratic is least: infinitely far on the side that falls, if it opens downwards."""
    return float(-fit[1] / (2 * fit[0]) if fit[0] > 0 else -np.sign(fit[1]) * np.inf)


def _positive(values: ArrayLike) -> Floats:
    array = np.asarray(values, float)
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise CannotFit("a value is not a positive number")
    return array


def _require_distinct(x: Floats) -> None:
    distinct = len(np.unique(x))
    if distinct < LEAST_POINTS:
        raise CannotFit(
            f"{distinct} distinct x; {LEAST_POINTS} are needed, three for the coefficients and one to test them"
        )


def _check_placement(x: Floats) -> None:
    _require_distinct(x)
    logs = np.log(np.unique(x))
    span = logs[-1] - logs[0]
    if span < np.log(LEAST_SPAN):
        raise CannotFit(f"x spans a factor of {np.exp(span):.2g}; at least {LEAST_SPAN:.0f} is needed to see a curve")
    widest = int(np.argmax(np.diff(logs)))
    if np.diff(logs)[widest] > WIDEST_GAP * span:
        between = f"{np.exp(logs[widest]):.3g} and {np.exp(logs[widest + 1]):.3g}"
        raise CannotFit(f"the points lie in two groups; one between {between} is needed")


def _log_law(theta: Floats, log_x: Floats | float) -> Floats:
    """Logarithm of the law; ``theta`` is (log offset, log falling term at x = 1, exponent), each a number or a row."""
    return np.asarray(np.logaddexp(theta[0], theta[1] - theta[2] * log_x))


def _starts(log_x: Floats, log_y: Floats) -> Floats:
    middle, least = np.exp(log_y.mean()), np.exp(log_y.min())
    return np.array(
        [
            [np.log(share * least), np.log(middle - 0.95 * share * least), exponent]
            for share in (0.3, 0.6, 0.9)
            for exponent in (0.1, 0.3, 0.6, 1.0)
        ]
    )


def _minimize(theta: Floats, log_x: Floats, log_y: Floats) -> tuple[Floats, Floats]:
    """The fits that ``theta`` [fits, 3] leads to, and their losses; ``log_y`` is [fits, points].

    Levenberg-Marquardt on the Huber loss as reweighted least squares, for all fits at once, within bounds.
    """
    least = log_y.min(axis=1)
    low = np.stack([least - 10, least - 15, np.full_like(least, 1e-3)], axis=1)
    high = np.stack([least, least + 5, np.full_like(least, 4.0)], axis=1)
    theta, damping = np.clip(theta, low, high), np.full(len(theta), 1e-2)
    loss = _huber(theta, log_x, log_y)
    for _ in range(ITERATIONS):
        step = _step(theta, log_x, log_y, damping)
        trials = [np.clip(theta - stretch * step, low, high) for stretch in STRETCHES]
        losses = np.array([loss, *(_huber(trial, log_x, log_y) for trial in trials)])
        chosen = losses.argmin(axis=0)
        theta = np.array([theta, *trials])[chosen, np.arange(len(theta))]
        loss = losses.min(axis=0)
        damping = np.clip(np.where(chosen > 0, damping / 5, damping * 3), 1e-9, 1e9)
    return theta, loss


def _residuals(theta: Floats, log_x: Floats, log_y: Floats) -> Floats:
    """In units of the Huber threshold."""
    return (_log_law(theta.T[:, :, None], log_x) - log_y) / HUBER


def _huber(theta: Floats, log_x: Floats, log_y: Floats) -> Floats:
    residual = _residuals(theta, log_x, log_y)
    clipped = np.clip(residual, -1, 1)
    return np.asarray((clipped * (residual - clipped / 2)).sum(axis=1))


def _step(theta: Floats, log_x: Floats, log_y: Floats, damping: Floats) -> Floats:
    """What a damped Gauss-Newton step takes off ``theta``."""
    residual = _residuals(theta, log_x, log_y)
    weights = 1 / np.maximum(1, np.abs(residual))
    share = np.exp(theta[:, :1] - HUBER * residual - log_y)
    slopes = np.stack([share, 1 - share, -log_x * (1 - share)], axis=2) / HUBER
    weighted = slopes * weights[:, :, None]
    gram = weighted.transpose(0, 2, 1) @ slopes
    diagonal = np.einsum("fii->fi", gram)
    gram = gram + damping[:, None, None] * np.einsum("fi,ij->fij", diagonal + 1e-12, np.eye(3))
    return np.asarray(np.linalg.solve(gram, np.einsum("fni,fn->fi", weighted, residual)[:, :, None])[:, :, 0])


def _noisy(predicted: Floats, observed: Floats, degrees: int) -> Floats:
    """The prediction plus normal noise [replicates, points], its variance drawn as the residuals leave it uncertain."""
    generator = np.random.default_rng(0)
    squares = float(((observed - predicted) ** 2).sum())
    scales = np.sqrt(squares / generator.chisquare(max(degrees, 1), size=REPLICATES))
    return np.asarray(predicted + scales[:, None] * generator.standard_normal((REPLICATES, len(predicted))))


def _coefficient(values: Floats) -> Coefficient:
    low, high = np.percentile(values, [TAIL, 100 - TAIL], method="nearest")
    return Coefficient(float(values[0]), float(low), float(high))
