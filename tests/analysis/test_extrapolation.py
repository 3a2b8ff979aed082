"""Speed at losses that nobody reached, where the laws behind the points are known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.page.html import render
from pipeline.analysis.page.report import summary
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Point, Row, points
from pipeline.analysis.statistics.extrapolation import Predicted, predict
from pipeline.analysis.statistics.findings import find
from pipeline.analysis.statistics.scaling import scale
from pipeline.results.metrics import PARAMETERS
from pipeline.study import Study

SIZES = {"xs": (2, 64), "s": (4, 128), "m": (6, 192), "l": (8, 256), "xl": (12, 384)}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    made = study_file(tmp_path, SIZES, [2], few_figures=True)
    write_results(made)
    return made


def of_laws(found: list[Point], loss: dict[str, tuple[float, float]], speed: dict[str, float]) -> list[Point]:
    """The points with losses ``offset + scale x^-0.3`` and ``speed x^-0.8`` tokens per second, by kind."""

    def change(point: Point, row: Row) -> Row:
        x, (offset, scale) = PARAMETERS.of(point) or 0.0, loss[point.kind]
        settings = {
            name: dataclasses.replace(measured, tokens_per_second=speed[point.kind] * x**-0.8)
            for name, measured in row.benchmark.settings.items()
        }
        return dataclasses.replace(
            row,
            evaluate=dataclasses.replace(row.evaluate, loss=offset + scale * x**-0.3),
            benchmark=dataclasses.replace(row.benchmark, settings=settings),
        )

    return [dataclasses.replace(each, rows=tuple(change(each, row) for row in each.rows)) for each in found]


def untimed(point: Point) -> Point:
    rows = [dataclasses.replace(row, benchmark=dataclasses.replace(row.benchmark, settings={})) for row in point.rows]
    return dataclasses.replace(point, rows=tuple(rows))


def predicted(study: Study, loss: dict[str, tuple[float, float]], without_speed: int = 0) -> list[Predicted]:
    """Of exact laws, where the smallest block transformers were not timed."""
    made = of_laws(points(load_rows(study)[0]), loss, {"vanilla": 1e9, "block": 8e9})
    vanilla, blocks = ([point for point in made if point.kind == kind] for kind in ("vanilla", "block"))
    blocks = [*map(untimed, blocks[:without_speed]), *blocks[without_speed:]]
    return predict(scale([*vanilla, *blocks]).laws, ["decode_heavy"])


def test_the_ratio_is_that_of_the_laws(study: Study) -> None:
    """A block transformer needs 2^(1/0.3) times the parameters, at a speed that falls with their power of 0.8."""
    found = predicted(study, {"vanilla": (2.0, 60.0), "block": (2.0, 120.0)})
    largest = max(PARAMETERS.of(point) or 0.0 for point in points(load_rows(study)[0]) if point.kind == "vanilla")
    assert [each.parameters / largest for each in found] == pytest.approx([1, 2, 4])
    for each in found:
        assert (each.first, each.second) == ("block L=2", "vanilla")
        assert each.loss.value == pytest.approx(2 + 60 * each.parameters**-0.3, rel=1e-4)
        assert each.needed.value / each.parameters == pytest.approx(2 ** (1 / 0.3), rel=0.02)
        assert each.ratio.value == pytest.approx(8 * 2 ** (-0.8 / 0.3), rel=0.02)


def test_noise_widens_the_interval_and_the_more_the_further(study: Study) -> None:
    found = predict(scale(points(load_rows(study)[0])).laws, ["decode_heavy"])
    widths = [each.ratio.high / max(each.ratio.low, 1e-9) for each in found]
    assert all(each.ratio.low < each.ratio.value < each.ratio.high for each in found)
    assert widths == sorted(widths)
    assert widths[0] > 1.05


def test_a_loss_below_a_laws_offset_is_never_reached(study: Study) -> None:
    found = predicted(study, {"vanilla": (1.0, 60.0), "block": (2.6, 60.0)})
    assert found[-1].needed.value == float("inf")
    assert found[-1].ratio.value == 0.0


def test_a_series_needs_three_sizes_that_were_timed(study: Study) -> None:
    laws = {"vanilla": (2.0, 60.0), "block": (2.0, 120.0)}
    assert len(predicted(study, laws, without_speed=2)) == 3
    assert predicted(study, laws, without_speed=3) == []


def test_the_report_has_them(study: Study, tmp_path: Path) -> None:
    findings = find(load_rows(study)[0])
    record = json.loads(json.dumps(summary(study, findings), allow_nan=False))["predicted_speedup"]
    assert [each["first"] for each in record] == ["block L=2"] * 3
    assert record[0]["ratio"]["value"] == findings.predicted[0].ratio.value
    page = render(study, findings, [], tmp_path)
    assert "Speed at equal loss that the laws predict" in page
    assert str(findings.predicted[0].ratio) in page
