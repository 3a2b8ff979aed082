"""Which fits a study gets: a law a series where the sizes allow it, isoFLOP optima where budgets are shared."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Point, Row, points
from pipeline.analysis.statistics.scaling import held_out_in_words, scale
from pipeline.results.metrics import LOSS, PARAMETERS, TRAINING_FLOPS, TRAINING_TOKENS

SIZES = {"xs": (2, 64), "s": (4, 128), "m": (6, 192), "l": (8, 256), "xl": (12, 384)}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, SIZES, [2, 4])
    write_results(study)
    return points(load_rows(study)[0])


def trained(found: list[Point], tokens: dict[str, int], flops: dict[str, float] | None = None) -> list[Point]:
    """The points with other training tokens and FLOPs by size."""

    def change(row: Row) -> Row:
        cost = flops[row.cell.size] if flops else 6.0 * row.pretrain.non_embedding_parameters * tokens[row.cell.size]
        pretrain = dataclasses.replace(row.pretrain, tokens=tokens[row.cell.size], training_flops=cost)
        return dataclasses.replace(row, pretrain=pretrain)

    return [dataclasses.replace(point, rows=tuple(map(change, point.rows))) for point in found]


def test_each_series_has_a_law_of_its_size(made: list[Point]) -> None:
    scaling = scale(made)
    assert [(law.series, law.x) for law in scaling.laws] == [
        ("vanilla", PARAMETERS),
        ("block L=2", PARAMETERS),
        ("block L=4", PARAMETERS),
    ]
    for law in scaling.laws:
        assert law.law.exponent.value == pytest.approx(0.31, abs=0.03)
        assert law.largest.size == "xl"
        assert law.test is not None
        assert abs(law.test.miss) < 0.05
    assert scaling.optima == ()
    assert scaling.refusals == ()


def test_a_largest_size_that_leaves_the_law_is_told_with_its_miss(made: list[Point]) -> None:
    """Vanilla xl is 0.3 nats worse than the law that made the others."""
    point = next(point for point in made if point.name == "vanilla-xl")
    row = point.rows[0]
    worse = dataclasses.replace(row, evaluate=dataclasses.replace(row.evaluate, loss=row.evaluate.loss + 0.3))
    broken = dataclasses.replace(point, rows=(worse,))
    vanilla, *_ = scale([broken if each is point else each for each in made]).laws
    sentence = held_out_in_words(vanilla)
    told = re.fullmatch(
        r"vanilla: fitted without vanilla-xl, the law of non-embedding parameters predicts (\S+) \(95 % interval (\S+) "
        r"to (\S+)\) where (\S+) was measured; it misses by \+(\S+) nats per token, (\S+) times the interval's "
        r"half-width\.",
        sentence,
    )
    assert told, sentence
    predicted, low, high, measured, miss, relative = map(float, told.groups())
    assert low < predicted < high
    assert measured == pytest.approx(worse.evaluate.loss, abs=1e-3)
    assert miss == pytest.approx(measured - predicted, abs=2e-3)
    assert miss > 0.25
    assert relative == pytest.approx(2 * miss / (high - low), rel=0.1)


def test_without_an_interval_the_miss_stands_beside_the_last_step(made: list[Point]) -> None:
    four = [point for point in made if point.size != "xl"]
    vanilla, *_ = scale(four).laws
    told = held_out_in_words(vanilla)
    losses = {point.size: LOSS.of(point) or 0.0 for point in four if point.kind == "vanilla"}
    assert "fitted without vanilla-l, " in told
    assert f"where the step to it from the point before brought {losses['l'] - losses['m']:+.3f}." in told
    untested = held_out_in_words(dataclasses.replace(vanilla, test=None))
    assert untested == "vanilla: no law fits without vanilla-l, so nothing tests the one with it."


def test_budgets_are_points_of_a_law_of_tokens_and_none_of_size(made: list[Point]) -> None:
    def shorter(point: Point, tokens: int) -> Point:
        row = point.rows[0]
        change = dataclasses.replace(
            row,
            cell=dataclasses.replace(row.cell, budget=tokens),
            pretrain=dataclasses.replace(row.pretrain, tokens=tokens),
            evaluate=dataclasses.replace(row.evaluate, loss=row.evaluate.loss + 300 * (tokens**-0.4 - 3_000_000**-0.4)),
        )
        return dataclasses.replace(point, name=f"{point.name}-{tokens}", rows=(change,))

    branches = [shorter(point, tokens) for point in made for tokens in (100_000, 300_000, 1_000_000)]
    whole, laws = scale(made).laws, scale([*made, *branches]).laws
    assert [(law.series, law.points) for law in laws if law.x is PARAMETERS] == [
        (law.series, law.points) for law in whole
    ]
    of_tokens = {f"{law.series}{law.at}": law for law in laws if law.x is TRAINING_TOKENS}
    assert len(of_tokens) == len(made)
    law = of_tokens["vanilla, size s"]
    assert law.law.exponent.value == pytest.approx(0.4, rel=0.05)
    assert law.largest.name == "vanilla-s"
    assert law.test is not None
    assert abs(law.test.miss) < 0.01
    assert {law.x for law in laws} == {PARAMETERS, TRAINING_TOKENS}


def test_a_study_of_two_sizes_is_told_what_is_missing(made: list[Point]) -> None:
    scaling = scale([point for point in made if point.size in ("s", "m")])
    assert scaling.laws == ()
    (refusal,) = scaling.refusals
    assert "2 distinct x; 4 are needed" in refusal
    assert "vanilla, block L=2, block L=4" in refusal


def test_where_training_differs_compute_takes_the_place_of_size(made: list[Point]) -> None:
    tokens = {size: 1_000_000 * 2**index for index, size in enumerate(SIZES)}
    assert {law.x for law in scale(trained(made, tokens)).laws} == {TRAINING_FLOPS}


def test_one_size_trained_on_several_amounts_is_fitted_against_tokens(made: list[Point]) -> None:
    one = next(point for point in made if point.name == "vanilla-s")

    def at(tokens: int) -> Point:
        row = one.rows[0]
        pretrain = dataclasses.replace(row.pretrain, tokens=tokens, training_flops=1e6 * tokens)
        evaluate = dataclasses.replace(row.evaluate, loss=2.0 + 300 * tokens**-0.4)
        return dataclasses.replace(one, rows=(dataclasses.replace(row, pretrain=pretrain, evaluate=evaluate),))

    laws = [law for law in scale([at(10**6 * 4**i) for i in range(5)]).laws if law.x is TRAINING_TOKENS]
    assert [law.at for law in laws] == [", size s"]
    assert laws[0].law.exponent.value == pytest.approx(0.4, rel=0.01)


def test_sizes_trained_for_equal_flops_have_an_optimum(made: list[Point]) -> None:
    tokens = {size: 64_000_000 // 2**index for index, size in enumerate(SIZES)}
    equal = trained(made, tokens, dict.fromkeys(SIZES, 1e15))
    bowl = {"xs": 4.0, "s": 3.5, "m": 3.3, "l": 3.4, "xl": 3.8}
    shaped = [
        dataclasses.replace(
            point,
            rows=tuple(
                dataclasses.replace(row, evaluate=dataclasses.replace(row.evaluate, loss=bowl[point.size]))
                for row in point.rows
            ),
        )
        for point in equal
    ]
    scaling = scale(shaped)
    assert [optimum.series for optimum in scaling.optima] == ["vanilla", "block L=2", "block L=4"]
    size = {point.size: PARAMETERS.of(point) or 0 for point in shaped}
    for optimum in scaling.optima:
        assert optimum.budget == pytest.approx(1e15)
        assert size["s"] < optimum.fit.optimum.value < size["l"]
        assert not optimum.fit.at_edge
