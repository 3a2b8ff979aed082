"""Speed at equal quality: exact on synthetic fronts, absent where they do not overlap, covered by its intervals."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analysis.rows.points import Point, Row, points
from pipeline.analysis.statistics.speedup import Matched, at_equal_cost, at_equal_quality
from pipeline.results.metrics import LOSS, TRAINING_FLOPS, Metric, setting_metric

RATE = setting_metric("decode_heavy", "tokens_per_second")
MEMORY = setting_metric("decode_heavy", "bytes_per_sample")


@pytest.fixture
def template(rows: list[Row]) -> Row:
    return rows[0]


def make(template: Row, family: str, values: list[tuple[float, float]], memory: float = 1.0) -> list[Point]:
    """Points of a family at (loss, tokens/s), one seed each and no losses by document."""
    made = []
    for index, (loss, rate) in enumerate(values):
        setting = template.benchmark.settings["decode_heavy"]
        setting = dataclasses.replace(
            setting, tokens_per_second=rate, spread=0.0, bytes_per_sample=memory * (index + 1)
        )
        row = dataclasses.replace(
            template,
            cell=dataclasses.replace(template.cell, family=family, size=f"size{index}"),
            pretrain=dataclasses.replace(template.pretrain, training_flops=1e12 * 4**index),
            evaluate=dataclasses.replace(template.evaluate, loss=loss, nats_by_document=[], targets_by_document=[]),
            benchmark=dataclasses.replace(template.benchmark, settings={"decode_heavy": setting}),
        )
        made += points([row])
    return made


def match(block: list[Point], vanilla: list[Point]) -> Matched:
    return at_equal_quality(("block", block), ("vanilla", vanilla), LOSS, RATE)


def test_the_ratio_is_exact_on_log_linear_fronts(template: Row) -> None:
    vanilla = make(template, "vanilla", [(loss, math.exp(2 * loss)) for loss in (2.0, 2.5, 3.0)])
    block = make(template, "block", [(loss, 7 * math.exp(2 * loss)) for loss in (2.2, 2.6, 3.4)])
    found = match(block, vanilla)
    assert [estimate.at for estimate in found.estimates] == [2.2, 2.5, 2.6, 3.0]
    assert [estimate.anchor for estimate in found.estimates] == [
        "block-size0",
        "vanilla-size1",
        "block-size1",
        "vanilla-size2",
    ]
    assert [estimate.value for estimate in found.estimates] == pytest.approx([7.0] * 4)
    assert found.best == found.estimates[0]


def test_between_points_throughput_is_interpolated_in_its_logarithm(template: Row) -> None:
    found = match(make(template, "block", [(2.5, 300.0)]), make(template, "vanilla", [(2.0, 10.0), (3.0, 1000.0)]))
    assert [estimate.value for estimate in found.estimates] == pytest.approx([3.0])


def test_dominated_points_bend_no_front(template: Row) -> None:
    vanilla = [(2.0, 10.0), (3.0, 1000.0)]
    slow_and_poor = [(2.5, 5.0), (2.0, 9.0), (3.0, 1000.0), (3.5, 900.0)]
    block = make(template, "block", [(2.1, 100.0), (2.9, 2000.0)])
    clean = match(block, make(template, "vanilla", vanilla))
    assert [
        e.value for e in match(block, make(template, "vanilla", vanilla + slow_and_poor)).estimates
    ] == pytest.approx([e.value for e in clean.estimates])


def test_of_a_cost_the_front_is_the_least_and_the_bounds_are_in_order(template: Row) -> None:
    """Seeds that differ give an interval; a dearer point of the same loss bends no front."""

    def seeded(family: str, values: list[tuple[float, float]]) -> list[Point]:
        made = [make(template, family, [(loss + shift, 1.0) for loss, _ in values]) for shift in (-0.02, 0.0, 0.02)]
        return [
            dataclasses.replace(
                group[0],
                rows=tuple(
                    dataclasses.replace(row, pretrain=dataclasses.replace(row.pretrain, training_flops=flops))
                    for row in (point.rows[0] for point in group)
                ),
            )
            for group, (_, flops) in zip(zip(*made, strict=True), values, strict=True)
        ]

    vanilla = seeded("vanilla", [(2.0, 1000.0), (2.5, 2000.0), (3.0, 10.0)])
    found = at_equal_quality(("block", seeded("block", [(2.5, 300.0)])), ("vanilla", vanilla), LOSS, TRAINING_FLOPS)
    (estimate,) = found.estimates
    assert estimate.value == pytest.approx(3.0)
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < 3.0 < estimate.high


def test_fronts_that_do_not_overlap_have_no_ratio(template: Row) -> None:
    found = match(
        make(template, "block", [(3.5, 99.0), (4.0, 999.0)]), make(template, "vanilla", [(2.0, 1.0), (3.0, 2.0)])
    )
    assert found.estimates == ()
    assert found.best is None
    assert "block 3.5 to 4, vanilla 2 to 3" in found.remark


def test_fronts_that_touch_are_compared_there_alone(template: Row) -> None:
    found = match(
        make(template, "block", [(3.0, 50.0), (4.0, 99.0)]), make(template, "vanilla", [(2.0, 1.0), (3.0, 5.0)])
    )
    assert {estimate.at for estimate in found.estimates} == {3.0}
    assert [estimate.value for estimate in found.estimates] == pytest.approx([10.0, 10.0])


def test_a_side_without_points_or_numbers_is_named(template: Row) -> None:
    assert "vanilla: no point" in match(make(template, "block", [(3.0, 50.0)]), []).remark
    silent = make(template, "vanilla", [(math.nan, 5.0)])
    assert "vanilla: no point" in match(make(template, "block", [(3.0, 50.0)]), silent).remark


def test_a_score_that_is_better_higher_is_matched_from_its_best(template: Row) -> None:
    score = Metric("score", "Score", "evaluate", lambda record: -record.loss, lower=False)
    vanilla = make(template, "vanilla", [(2.0, 10.0), (3.0, 100.0)])
    block = make(template, "block", [(2.2, 60.0), (3.2, 600.0)])
    by_score = at_equal_quality(("block", block), ("vanilla", vanilla), score, RATE)
    by_loss = match(block, vanilla)
    assert [e.value for e in by_score.estimates] == pytest.approx([e.value for e in by_loss.estimates])
    assert [e.at for e in by_score.estimates] == pytest.approx([-2.2, -3.0])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_estimate_lies_outside_what_both_reach(data: st.DataObject, template_row: Row) -> None:
    pair = st.tuples(st.floats(1, 5), st.floats(1, 1e6))
    block, vanilla = ([*data.draw(st.lists(pair, min_size=1, max_size=6))] for _ in range(2))
    found = match(make(template_row, "block", block), make(template_row, "vanilla", vanilla))
    low = max(min(loss for loss, _ in side) for side in (block, vanilla))
    high = min(max(loss for loss, _ in side) for side in (block, vanilla))
    for estimate in found.estimates:
        assert low <= estimate.at <= high
        assert math.isfinite(estimate.value)
        assert estimate.value > 0


@pytest.fixture(scope="module")
def template_row(tmp_path_factory: pytest.TempPathFactory) -> Row:
    from synthetic import benchmark_result, evaluate_result, pretrain_result, study_file

    from pipeline.study import cells

    study = study_file(tmp_path_factory.mktemp("study"), {"s": (4, 128)}, [2])
    cell = cells(study)[0]
    return Row(cell, pretrain_result(study, cell), evaluate_result(study, cell), benchmark_result(study, cell))


def test_at_equal_flops_and_memory_sizes_are_joined_in_order_of_cost(template: Row) -> None:
    vanilla = make(template, "vanilla", [(3.0, 100.0), (2.0, 10.0)])
    block = make(template, "block", [(3.2, 900.0), (2.4, 60.0)], memory=1.5)
    sides = ("block L=4", block), ("vanilla", vanilla)
    at_flops = at_equal_cost(*sides, TRAINING_FLOPS, RATE)
    assert {estimate.at: estimate.value for estimate in at_flops.estimates} == pytest.approx({1e12: 9.0, 4e12: 6.0})
    losses = at_equal_cost(*sides, TRAINING_FLOPS, LOSS)
    assert {estimate.at: estimate.value for estimate in losses.estimates} == pytest.approx({1e12: 0.2, 4e12: 0.4})
    memory = at_equal_cost(*sides, MEMORY, RATE)
    assert sorted(estimate.at for estimate in memory.estimates) == pytest.approx([1.5, 2.0])
    at_one_and_a_half = next(estimate.value for estimate in memory.estimates if estimate.at == pytest.approx(1.5))
    assert at_one_and_a_half == pytest.approx(900 / (100 * 0.1 ** (math.log(1.5) / math.log(2))))


def test_one_seed_without_documents_has_no_interval_and_says_so(template: Row) -> None:
    found = match(make(template, "block", [(2.5, 300.0)]), make(template, "vanilla", [(2.0, 10.0), (3.0, 1000.0)]))
    assert found.estimates[0].low is None
    assert "several seeds, or losses by document" in found.remark


def with_documents(found: list[Point], noise: np.ndarray) -> list[Point]:
    """The points with losses by document: their own loss plus noise [points, documents], which need not cancel."""
    made = []
    for point, extra in zip(found, noise, strict=True):
        row = point.rows[0]
        losses = row.evaluate.loss + extra
        evaluate = dataclasses.replace(
            row.evaluate,
            loss=float(losses.mean()),
            nats_by_document=[float(100 * loss) for loss in losses],
            targets_by_document=[100] * len(losses),
        )
        made += points([dataclasses.replace(row, evaluate=evaluate)])
    return made


def test_documents_that_are_hard_for_every_model_widen_no_interval(template: Row) -> None:
    vanilla = make(template, "vanilla", [(2.0, 10.0), (3.0, 1000.0)])
    block = make(template, "block", [(2.5, 300.0)])
    shared = np.random.default_rng(0).normal(0, 1, 30)
    shared -= shared.mean()
    found = match(with_documents(block, shared[None]), with_documents(vanilla, np.stack([shared, shared])))
    assert (found.estimates[0].low, found.estimates[0].high) == pytest.approx((3.0, 3.0))


def test_intervals_over_documents_cover_the_true_ratio(template: Row) -> None:
    """Of 60 held-out sets drawn anew, about 95 % give an interval that holds the ratio without noise."""
    covered = 0
    for trial in range(60):
        generator = np.random.default_rng(trial)
        vanilla = make(template, "vanilla", [(2.0, 10.0), (3.0, 1000.0)])
        block = make(template, "block", [(2.5, 300.0)])
        noise = [generator.normal(0, 0.3, size=(len(side), 40)) for side in (block, vanilla)]
        found = match(with_documents(block, noise[0]), with_documents(vanilla, noise[1])).estimates
        assert found[0].low is not None
        assert found[0].high is not None
        covered += found[0].low <= 3.0 <= found[0].high
    assert 51 <= covered <= 60


def test_seeds_alone_give_an_interval(template: Row) -> None:
    def seeded(family: str, values: list[tuple[float, float]]) -> list[Point]:
        singles = [
            make(template, family, [(loss + shift, rate) for loss, rate in values]) for shift in (-0.05, 0.0, 0.05)
        ]
        return [
            dataclasses.replace(group[0], rows=tuple(point.rows[0] for point in group))
            for group in zip(*singles, strict=True)
        ]

    found = match(seeded("block", [(2.5, 300.0)]), seeded("vanilla", [(2.0, 10.0), (3.0, 1000.0)]))
    estimate = found.estimates[0]
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < 3.0 < estimate.high


def test_the_papers_own_table_gives_the_ratios_between_its_near_pairs(template: Row) -> None:
    """Ho et al. 2024, table 1, decode-heavy, thousands of tokens/s.

    At vanilla 302M's loss (2.224) the block front lies between 805M (2.268, 42.5) and 1.2B (2.188, 25.7), which are
    20.2 and 12.2 times as fast.
    """
    vanilla = make(template, "vanilla", [(3.002, 41.6), (2.820, 19.1), (2.476, 6.2), (2.224, 2.1)])
    block = make(
        template, "block", [(3.578, 809.5), (3.181, 421.4), (2.753, 134.7), (2.445, 44.1), (2.268, 42.5), (2.188, 25.7)]
    )
    best = match(block, vanilla).best
    assert best is not None
    assert (best.anchor, best.at) == ("vanilla-size3", 2.224)
    share = (2.224 - 2.188) / (2.268 - 2.188)
    assert best.value == pytest.approx(25.7 * (42.5 / 25.7) ** share / 2.1)
    assert 12.2 < best.value < 20.3
