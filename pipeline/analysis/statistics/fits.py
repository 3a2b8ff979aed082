"""Scaling fits: loss as a power law with an offset, and the optimum of an isoFLOP curve. Poor data is refused.

The power law is fitted as Hoffmann et al. 2022 (section 3.3) do: Huber loss on the logarithms, from a grid of starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import leastsq
from scipy.special import expit, logit

Floats = NDArray[np.float64]
HUBER = 1e-3  # residuals of the logarithm past which the loss is linear
TOLERANCES = {"ftol": 1e-8, "xtol": 1e-8, "gtol": 1e-8}  # MINPACK's, as those of scipy's least_squares
MOST_CALLS = 300
REPLICATES = 200
STEEPEST = 4.0  # exponent; poor resamples would run away
TAIL = 2.5  # percent on either side of an interval
LEAST_POINTS = 4
LEAST_TIMED = 3  # of a power without an offset
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
        return coefficient(self.at(x))

    def at(self, x: float) -> Floats:
        """The loss at x by each fit [replicates], the fit itself first."""
        return np.exp(_log_law(self.replicates.T, np.log(x / self.centre)))

    def reached(self, losses: Floats) -> Floats:
        """The x at which each fit has its loss of ``losses`` [replicates]; infinite where its offset is above it."""
        offsets, terms, exponents = self.replicates.T
        falling = losses - np.exp(offsets)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = self.centre * np.exp((terms - np.log(falling)) / exponents)
        return np.where(falling > 0, x, np.inf)

    def trained(self, x: float) -> bool:
        """Whether x lies within the fitted points."""
        return self.low <= x <= self.high


@dataclass(frozen=True)
class Power:
    """``y`` proportional to a power of x.

    ``replicates`` [replicates, 2] holds (exponent, log y at ``centre``) of the fits to resampled noise, the first row
    the fit itself.
    """

    centre: float
    replicates: Floats

    def at(self, x: float | Floats) -> Floats:
        """y at x by each fit [replicates]; x is one number, or one for each fit."""
        exponents, logs = self.replicates.T
        return np.exp(logs + exponents * np.log(np.asarray(x) / self.centre))


@dataclass(frozen=True)
class HeldOut:
    """A law fitted without its greatest ``x``, and the mean loss ``observed`` there; ``before`` at the next lower x.

    The interval of ``predicted`` is that of one more observation; there is none where the points left no degree of
    freedom to tell the noise by, as three do.
    """

    x: float
    before: float
    observed: float
    predicted: float
    low: float | None = None
    high: float | None = None

    @property
    def miss(self) -> float:
        """By how much the loss is above the prediction."""
        return self.observed - self.predicted

    @property
    def relative(self) -> float | None:
        """The miss in half-widths of the interval: past 1 it is more than the noise of the other points explains."""
        if self.low is None or self.high is None or self.high <= self.low:
            return None
        return 2 * abs(self.miss) / (self.high - self.low)


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
    centre = float(np.exp(np.log(x).mean()))
    log_x, log_y = np.log(x / centre), np.log(y)
    replicates = _refits(_best(log_x, log_y), log_x, log_y)
    offsets, terms, exponents = replicates.T
    return PowerLaw(
        offset=coefficient(np.exp(offsets)),
        scale=coefficient(np.exp(terms) * centre**exponents),
        exponent=coefficient(exponents),
        low=float(x.min()),
        high=float(x.max()),
        centre=centre,
        replicates=replicates,
    )


def power(x: ArrayLike, y: ArrayLike) -> Power:
    """Fit y by a power of x, by least squares of the logarithms. Raises :class:`CannotFit`."""
    x, y = _positive(x), _positive(y)
    distinct = len(np.unique(x))
    if distinct < LEAST_TIMED:
        raise CannotFit(f"{distinct} distinct x; {LEAST_TIMED} are needed, two for the line and one to test it")
    centre = float(np.exp(np.log(x).mean()))
    log_x, log_y = np.log(x / centre), np.log(y)
    best = np.polyfit(log_x, log_y, 1)
    line = np.polyval(best, log_x)
    noisy = line + _noise(log_y - line, degrees=len(x) - 2, seed=2)
    return Power(centre, np.array([best, *(np.polyfit(log_x, resampled, 1) for resampled in noisy)]))


def held_out(x: ArrayLike, y: ArrayLike) -> HeldOut:
    """Fit the law without the greatest x, and compare it with what was measured there. Raises :class:`CannotFit`."""
    x, y = _positive(x), _positive(y)
    _require_distinct(x)
    kept = x < x.max()
    far, before, observed = float(x.max()), float(y[x == x[kept].max()].mean()), float(y[~kept].mean())
    log_x, log_y = np.log(x[kept] / far), np.log(y[kept])
    best = _best(log_x, log_y)
    predicted = float(np.exp(_log_law(best, 0.0)))
    degrees = len(log_x) - 3
    if degrees < 1:
        return HeldOut(far, before, observed, predicted)
    noise = _noise(log_y - _log_law(best, log_x), degrees, seed=1)[:, 0]  # of one more observation
    refits = _log_law(_refits(best, log_x, log_y)[1:].T, 0.0)
    interval = coefficient(np.concatenate([[predicted], np.exp(refits + noise)]))
    return HeldOut(far, before, observed, predicted, interval.low, interval.high)


def _best(log_x: Floats, log_y: Floats) -> Floats:
    """(log offset, log of the falling term at x = 1, exponent) of the law that fits best. Raises :class:`CannotFit`."""
    if log_y[np.argmax(log_x)] >= log_y[np.argmin(log_x)]:
        raise CannotFit("the loss does not fall from the least x to the greatest")
    return min((_minimize(start, log_x, log_y) for start in _starts(log_x, log_y)), key=lambda fit: fit[1])[0]


def _refits(best: Floats, log_x: Floats, log_y: Floats) -> Floats:
    """The fit, then those to resampled noise [1 + replicates, 3]."""
    noisy = _noisy(_log_law(best, log_x), log_y, degrees=len(log_x) - 3)
    return np.array([best, *(_minimize(best, log_x, resampled)[0] for resampled in noisy)])


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
    optimum = coefficient(centre * np.exp([_vertex(fit) for fit in (best, *refits)]))
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


def _minimize(theta: Floats, log_x: Floats, log_y: Floats) -> tuple[Floats, float]:
    """The fit that ``theta`` leads to, and its Huber loss, by MINPACK's Levenberg-Marquardt.

    MINPACK knows neither bounds nor a loss: the exponent is fitted as its logit, so that it stays between 0 and
    :data:`STEEPEST`, and each residual is the root of its Huber loss, so that their squares add up to it.
    """

    def roots(free: Floats) -> Floats:
        residual = _residuals(free, log_x, log_y)
        return np.asarray(np.where(np.abs(residual) <= 1, residual, np.sign(residual) * _tail(residual)))

    def slopes(free: Floats) -> Floats:
        residual = _residuals(free, log_x, log_y)
        share = np.exp(free[0] - HUBER * residual - log_y)  # of the law that is offset
        falling, exponent = 1 - share, STEEPEST * expit(free[2])
        rows = np.empty((3, len(log_x)))
        rows[0], rows[1] = share, falling
        rows[2] = -log_x * falling * exponent * (1 - exponent / STEEPEST)
        return np.asarray(rows * (1 / _tail(residual) / HUBER))

    start = [*theta[:2], logit(theta[2] / STEEPEST)]
    with np.errstate(over="ignore"):  # in a covariance that MINPACK's caller makes and nobody reads
        free, _, at_end, *_ = leastsq(
            roots, start, Dfun=slopes, col_deriv=True, full_output=True, maxfev=MOST_CALLS, **TOLERANCES
        )
    return np.array([*free[:2], STEEPEST * expit(free[2])]), float((at_end["fvec"] ** 2).sum() / 2)


def _residuals(free: Floats, log_x: Floats, log_y: Floats) -> Floats:
    """In units of the Huber threshold."""
    law = np.logaddexp(free[0], free[1] - STEEPEST * expit(free[2]) * log_x)
    return np.asarray((law - log_y) / HUBER)


def _tail(residual: Floats) -> Floats:
    """The root of twice the Huber loss past the threshold, where the loss is linear."""
    return np.asarray(np.sqrt(np.maximum(2 * np.abs(residual) - 1, 1)))


def _noisy(predicted: Floats, observed: Floats, degrees: int) -> Floats:
    """The prediction plus noise [replicates, points]."""
    return np.asarray(predicted + _noise(observed - predicted, degrees))


def _noise(residuals: Floats, degrees: int, seed: int = 0) -> Floats:
    """Normal noise [replicates, points], its variance drawn as the residuals leave it uncertain."""
    generator = np.random.default_rng(seed)
    squares = float((residuals**2).sum())
    scales = np.sqrt(squares / generator.chisquare(max(degrees, 1), size=REPLICATES))
    return np.asarray(scales[:, None] * generator.standard_normal((REPLICATES, len(residuals))))


def coefficient(values: Floats) -> Coefficient:
    """The first of the values, and the bounds of the middle 95 % of all."""
    low, high = np.percentile(values, [TAIL, 100 - TAIL], method="nearest")
    return Coefficient(float(values[0]), float(low), float(high))
