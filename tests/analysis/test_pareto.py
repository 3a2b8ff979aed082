"""Non-dominated sets and hypervolume against Optuna's, on points with ties, duplicates and infinities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _is_pareto_front

from pipeline.analysis.rows.points import Point, Row, points
from pipeline.analysis.statistics.pareto import front, hypervolume
from pipeline.base.dominance import non_dominated, unbeaten
from pipeline.results.metrics import LOSS, Metric
from pipeline.results.records import BenchmarkResult

COORDINATE = st.one_of(st.integers(0, 4).map(float), st.floats(-10, 10), st.sampled_from([math.inf, -math.inf]))
FINITE = st.one_of(st.integers(0, 4).map(float), st.floats(0, 10))


def matrices(objectives: int, elements: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    return st.integers(1, 12).flatmap(lambda count: arrays(float, (count, objectives), elements=elements))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([1, 2, 3]).flatmap(lambda n: matrices(n, COORDINATE)), st.data())
def test_non_dominated_rows_are_those_of_optuna(values: np.ndarray, data: st.DataObject) -> None:
    lower = data.draw(st.lists(st.booleans(), min_size=values.shape[1], max_size=values.shape[1]))
    expected = _is_pareto_front(values * np.where(lower, 1, -1), assume_unique_lexsorted=False)
    assert non_dominated(values, lower).tolist() == expected.tolist()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([2, 3]).flatmap(lambda n: matrices(n, FINITE)), st.data())
def test_hypervolume_is_that_of_optuna(values: np.ndarray, data: st.DataObject) -> None:
    reference = np.array([data.draw(st.floats(1, 12)) for _ in range(values.shape[1])])
    better = values[(values < reference).all(axis=1)]
    expected = compute_hypervolume(better, reference) if len(better) else 0.0
    assert hypervolume(values, reference, [True] * values.shape[1]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_counts_the_cells_of_a_grid(objectives: int) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        values = generator.integers(0, 5, size=(6, objectives))
        grid = np.stack(np.meshgrid(*[np.arange(6)] * objectives), axis=-1).reshape(-1, objectives)
        covered = (values[None] <= grid[:, None]).all(axis=2).any(axis=1).sum()
        assert hypervolume(values, [6] * objectives, [True] * objectives) == covered


def test_directions_mirror_the_objectives() -> None:
    loss_and_rate = [[3.0, 10.0], [2.0, 5.0], [3.5, 9.0], [3.0, 10.0]]
    assert non_dominated(loss_and_rate, [True, False]).tolist() == [True, True, False, True]
    assert hypervolume(loss_and_rate, [4.0, 0.0], [True, False]) == pytest.approx(1 * 10 + 1 * 5)


def test_infinitely_good_points_have_infinite_volume_and_infinitely_bad_ones_none() -> None:
    assert hypervolume([[-math.inf, 1.0]], [2.0, 2.0], [True, True]) == math.inf
    assert hypervolume([[-math.inf, -math.inf, 0], [-math.inf, 1, 1]], [2, 2, 2], [True] * 3) == math.inf
    assert hypervolume([[math.inf, 1.0], [1.0, 1.0]], [2.0, 2.0], [True, True]) == 1.0


def test_no_points_have_no_volume() -> None:
    assert hypervolume(np.empty((0, 3)), [1, 1, 1], [True] * 3) == 0.0
    assert non_dominated(np.empty((0, 2)), [True, True]).tolist() == []


def test_nan_and_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        non_dominated([[1.0, math.nan]], [True, True])
    with pytest.raises(ValueError, match="shape"):
        non_dominated([[1.0, 2.0]], [True])
    with pytest.raises(ValueError, match="2 or 3"):
        hypervolume([[1.0] * 4], [2.0] * 4, [True] * 4)


def test_points_without_a_metric_are_left_out_by_name(rows: list[Row]) -> None:
    def known(record: BenchmarkResult) -> float | None:
        settings = record.settings["decode_heavy"]
        return None if record.cell.name == "block-m-2-base-0" else settings.tokens_per_second

    split = front(points(rows), (LOSS, Metric("speed", "Speed", "benchmark", known, lower=False)))
    assert split.dropped == ("block-m-2-base has no finite speed and is left out",)
    assert len(split.front) + len(split.dominated) == len(rows) - 1
    for point in split.dominated:
        assert any(_at_least_as_good(other, point, known) for other in split.front)


def _at_least_as_good(other: Point, point: Point, speed: object) -> bool:
    assert callable(speed)
    losses = other.rows[0].evaluate.loss, point.rows[0].evaluate.loss
    return bool(losses[0] <= losses[1] and speed(other.rows[0].benchmark) >= speed(point.rows[0].benchmark))


@pytest.mark.parametrize("seed", range(3))
def test_many_sets_at_once_are_each_as_if_alone(seed: int) -> None:
    """Of whole numbers, so that points tie."""
    sets = np.random.default_rng(seed).integers(0, 4, (20, 7, 2)).astype(float)
    alone = [non_dominated(points_, [True, True]).tolist() for points_ in sets]
    assert unbeaten(sets).tolist() == alone


def test_a_nan_neither_beats_nor_is_beaten() -> None:
    assert unbeaten(np.array([[1.0, 1.0], [math.nan, 0.0], [2.0, 2.0]])).tolist() == [True, True, False]
