"""Scaling fits recover known coefficients within their intervals, and refuse what cannot be fitted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.analysis.statistics import fits
from pipeline.analysis.statistics.fits import CannotFit, held_out, parabola, power_law

OFFSET, SCALE, EXPONENT = 1.7, 400.0, 0.34
FAR = 4e9


def law(x: np.ndarray) -> np.ndarray:
    return OFFSET + SCALE * x**-EXPONENT


def sizes(count: int) -> np.ndarray:
    return np.geomspace(1e6, 1e9, count)


def test_a_law_without_noise_is_recovered() -> None:
    fitted = power_law(sizes(6), law(sizes(6)))
    assert fitted.offset.value == pytest.approx(OFFSET, rel=1e-3)
    assert fitted.scale.value == pytest.approx(SCALE, rel=1e-2)
    assert fitted.exponent.value == pytest.approx(EXPONENT, rel=1e-3)
    assert fitted.predict(FAR).value == pytest.approx(law(np.array(FAR)), rel=1e-3)
    assert (fitted.trained(1e6), fitted.trained(FAR)) == (True, False)


@pytest.mark.slow
def test_intervals_cover_the_coefficients_that_made_the_data() -> None:
    """Of 15 noisy studies of 6 sizes, about 95 % hold the truth: at least 12, which 95 % coverage gives in 99 %."""
    covered = np.zeros(4, int)
    for trial in range(15):
        noise = np.exp(0.005 * np.random.default_rng(trial).standard_normal(6))
        fitted = power_law(sizes(6), law(sizes(6)) * noise)
        truths = (
            (fitted.offset, OFFSET),
            (fitted.scale, SCALE),
            (fitted.exponent, EXPONENT),
            (fitted.predict(FAR), law(np.array(FAR))),
        )
        covered += [found.low <= truth <= found.high for found, truth in truths]
    assert covered.min() >= 12


def test_one_failed_run_bends_a_law_little() -> None:
    losses = law(sizes(9))
    losses[4] *= 1.3
    fitted = power_law(sizes(9), losses)
    assert fitted.exponent.value == pytest.approx(EXPONENT, rel=0.02)


def test_several_seeds_of_a_size_are_points_of_their_own() -> None:
    x = np.repeat(sizes(5), 3)
    y = law(x) * np.exp(0.002 * np.random.default_rng(0).standard_normal(15))
    fitted = power_law(x, y)
    assert fitted.exponent.low < EXPONENT < fitted.exponent.high
    assert fitted.exponent.high - fitted.exponent.low < 0.1


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1e6, 1e7, 1e8], [4, 3, 2.5], "3 distinct x; 4 are needed"),
        ([1e6, 1e6, 1e7, 1e7], [4, 4, 3, 3], "2 distinct x; 4 are needed"),
        ([1e6, 2e6, 3e6, 4e6], [4, 3.8, 3.7, 3.6], "spans a factor of 4; at least 8"),
        ([1e6, 1.1e6, 1.2e6, 1e9], [4, 3.9, 3.8, 2], r"two groups; one between 1.2e\+06 and 1e\+09"),
        ([1e6, 1e7, 1e8, 1e9], [3, 3.1, 3.2, 3.3], "does not fall"),
        ([1e6, 1e7, 1e8, 1e9], [3, math.nan, 2, 1], "not a positive number"),
        ([0, 1e7, 1e8, 1e9], [3, 2.5, 2, 1], "not a positive number"),
    ],
)
def test_a_law_is_refused_where_points_are_too_few_or_badly_placed(
    x: list[float], y: list[float], message: str
) -> None:
    with pytest.raises(CannotFit, match=message):
        power_law(x, y)


def bowl(x: np.ndarray) -> np.ndarray:
    return 2.5 + 0.08 * np.log(x / 4e7) ** 2


def test_a_parabola_without_noise_has_its_optimum() -> None:
    x = np.geomspace(5e6, 3e8, 5)
    fitted = parabola(x, bowl(x))
    assert fitted.optimum.value == pytest.approx(4e7)
    assert fitted.minimum == pytest.approx(2.5)
    assert not fitted.at_edge
    assert fitted.at(x) == pytest.approx(bowl(x))


def test_intervals_cover_the_optimum() -> None:
    x = np.geomspace(5e6, 3e8, 6)
    fits = [parabola(x, bowl(x) + 0.01 * np.random.default_rng(trial).standard_normal(6)) for trial in range(60)]
    assert sum(fit.optimum.low <= 4e7 <= fit.optimum.high for fit in fits) >= 52


@pytest.mark.parametrize("x", [np.geomspace(6e7, 3e8, 5), np.geomspace(1e6, 3e7, 5)])
def test_an_optimum_beyond_the_points_is_marked(x: np.ndarray) -> None:
    assert parabola(x, bowl(x)).at_edge


def test_a_parabola_is_refused_without_a_minimum_or_with_three_points() -> None:
    x = np.geomspace(5e6, 3e8, 5)
    with pytest.raises(CannotFit, match="opens downwards"):
        parabola(x, 5 - bowl(x))
    with pytest.raises(CannotFit, match="3 distinct x"):
        parabola(x[:3], bowl(x[:3]))


@pytest.mark.parametrize("offset", [0.5, 2.0])
@pytest.mark.parametrize("exponent", [0.05, 0.3, 1.2])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e15])
def test_any_law_is_recovered_in_any_unit(
    monkeypatch: pytest.MonkeyPatch, offset: float, exponent: float, unit: float
) -> None:
    monkeypatch.setattr(fits, "REPLICATES", 10)  # only its intervals need more
    x = np.geomspace(1.0, 1e4, 7)
    fitted = power_law(x * unit, offset + 3.0 * x**-exponent)
    assert fitted.offset.value == pytest.approx(offset, rel=2e-3)
    assert fitted.exponent.value == pytest.approx(exponent, rel=2e-3)
    assert fitted.scale.value == pytest.approx(3.0 * unit**exponent, rel=2e-2)


@pytest.mark.parametrize("seed", range(4))
def test_wild_data_give_finite_numbers(seed: int) -> None:
    """Four points whose noise is as large as what falls: the interval is wide, and the law stays one."""
    y = (2 + sizes(4) ** -0.1) * np.exp(0.05 * np.random.default_rng(seed).standard_normal(4))
    y[0], y[-1] = y.max() + 0.01, y.min() - 0.01
    fitted = power_law(sizes(4), y)
    for number in (fitted.offset, fitted.exponent, fitted.predict(FAR)):
        assert 0 <= number.low <= number.value <= number.high < math.inf
    assert fitted.exponent.high <= 4


def test_a_law_predicts_the_point_that_it_was_not_fitted_to() -> None:
    """Of 20 noisy studies of 6 sizes, about 95 % of the intervals hold what was measured: at least 17."""
    inside = 0
    for trial in range(20):
        noise = np.exp(0.005 * np.random.default_rng(trial).standard_normal(6))
        test = held_out(sizes(6), law(sizes(6)) * noise)
        assert abs(test.miss) < 0.1
        assert test.relative is not None
        inside += test.relative <= 1
    assert inside >= 17


def test_a_law_that_breaks_misses_what_lies_beyond_by_far() -> None:
    """The largest size is 0.15 nats worse than the law of the others, whose noise is 0.1 %."""
    losses = law(sizes(6)) * np.exp(0.001 * np.random.default_rng(0).standard_normal(6))
    losses[-1] += 0.15
    test = held_out(sizes(6), losses)
    assert (test.x, test.observed, test.before) == (1e9, losses[-1], losses[-2])
    assert test.predicted == pytest.approx(law(np.array(1e9)), abs=0.03)
    assert test.miss == pytest.approx(0.15, abs=0.03)
    assert test.relative is not None
    assert test.relative > 2


def test_the_held_out_point_changes_no_prediction() -> None:
    noisy = law(sizes(6)) * np.exp(0.005 * np.random.default_rng(1).standard_normal(6))
    other = np.array([*noisy[:-1], 2 * noisy[-1]])
    one, two = held_out(sizes(6), noisy), held_out(sizes(6), other)
    assert (one.predicted, one.low, one.high) == (two.predicted, two.low, two.high)


def test_three_points_predict_without_an_interval() -> None:
    test = held_out(sizes(4), law(sizes(4)))
    assert test.miss == pytest.approx(0, abs=2e-3)
    assert (test.low, test.high, test.relative) == (None, None, None)


def test_seeds_of_the_held_out_size_are_averaged_and_those_of_the_others_give_an_interval() -> None:
    x = np.repeat(sizes(4), 3)
    y = law(x) * np.exp(0.002 * np.random.default_rng(0).standard_normal(12))
    test = held_out(x, y)
    assert test.observed == pytest.approx(y[-3:].mean())
    assert test.low is not None
    assert test.high is not None
    assert test.low < test.predicted < test.high


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([4, 3, 2.5], "3 distinct x; 4 are needed"),
        ([3, 3.2, 3.4, 2], "does not fall"),
        ([4, 3, math.nan, 2], "positive"),
    ],
)
def test_what_cannot_be_tested_is_refused(y: list[float], message: str) -> None:
    with pytest.raises(CannotFit, match=message):
        held_out(sizes(len(y)), y)
