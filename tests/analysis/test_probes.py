"""Probes in the tables and figures: every place in probes.csv, their summaries in results.csv and MLflow."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.figures.copying import copy_figures
from pipeline.analysis.figures.losses import loss_figures
from pipeline.analysis.page import tables
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Row, points
from pipeline.results.metrics import result_metrics
from pipeline.results.records import CopyScore, EvaluateResult, RecallScore, read_result, write_result


def copies(left: list[float]) -> list[CopyScore]:
    """Spans of 16 and 32 tokens of which ``left[distance % 4]`` is left, in text twice as much."""
    return [
        CopyScore(kind, span, distance, 8.0, 8.0 * times * left[distance % 4], 0.1, 5)
        for kind, times in (("random", 1), ("text", 2))
        for span in (16, 32)
        for distance in range(32, 40)
    ]


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Vanilla copies at any offset; the block transformer of block length 4 only where both copies lie alike."""
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (2, 64)}, [4], needle=3)
    write_results(study)
    left = ([0.0] * 4, [0.0, 0.5, 0.6, 0.5])
    return [
        dataclasses.replace(row, evaluate=dataclasses.replace(row.evaluate, copies=copies(each)))
        for row, each in zip(load_rows(study)[0], left, strict=True)
    ]


def test_summaries_are_columns_and_mlflow_s(probed: list[Row]) -> None:
    vanilla, block = csv.DictReader(io.StringIO(tables.results_csv(probed)))
    logged = result_metrics(probed[1].evaluate)
    needles = [each.accuracy for each in probed[1].evaluate.needle if each.prompt == "plain"]
    expected = {
        "needle_plain": sum(needles) / len(needles),
        "copy_random_loss": 8 * 0.4,
        "copy_random_left": 0.4,
        "copy_text_left": 0.8,
    }
    for key, value in expected.items():
        assert float(block[key]) == logged[key] == pytest.approx(value)
    assert float(vanilla["copy_random_left"]) == 0.0
    assert [logged[f"copy_random_left_offset_{offset}"] for offset in range(4)] == pytest.approx([0, 0.5, 0.6, 0.5])
    assert "copy_random_left_offset_0" not in block


def test_the_loss_of_a_context_is_the_mean_over_its_positions(probed: list[Row]) -> None:
    curve = probed[0].evaluate.loss_by_context[0]
    places = [max(i for i, start in enumerate(curve.starts) if start <= at) for at in range(1, curve.length)]
    logged = result_metrics(probed[0].evaluate)
    mean = sum(curve.losses[place] for place in places) / len(places)
    assert logged[f"loss_at_{curve.length}_mean"] == pytest.approx(mean)
    assert logged[f"loss_at_{curve.length}"] == curve.losses[-1]


def test_every_place_of_a_probe_is_a_line_of_its_table(probed: list[Row]) -> None:
    lines = list(csv.DictReader(io.StringIO(tables.probes_csv(probed))))
    mine = [line for line in lines if line["cell"] == probed[1].name]
    record = probed[1].evaluate
    counts = {name: sum(line["probe"] == name for line in mine) for name in {line["probe"] for line in mine}}
    assert counts == {
        "needle": len(record.needle),
        "context": sum(len(curve.losses) for curve in record.loss_by_context),
        "block_position": 4,
        "copy": 2 * len(record.copies),
    }
    second = next(
        line for line in mine if (line["probe"], line["kind"], line["place"]) == ("copy", "text second", "33")
    )
    assert (second["tokens"], float(second["value"]), float(second["stderr"])) == ("16", 8.0, 0.1)
    diverged = [dataclasses.replace(row, pretrain=dataclasses.replace(row.pretrain, diverged=True)) for row in probed]
    assert len(tables.probes_csv(diverged).splitlines()) == 1


def test_the_figure_by_offset_shows_each_family_in_its_own_blocks(probed: list[Row]) -> None:
    drawn = {drawing.name: figure for figure, drawing in copy_figures(points(probed))}
    assert list(drawn) == ["copy_offset", "copy_distance", "copy_span"]
    lines = {each.get_label(): each.get_xydata().tolist() for each in drawn["copy_offset"].axes[0].lines}
    assert lines["block L=4"] == [[0, 0], [1, 0.5], [2, 0.6], [3, 0.5]]
    assert lines["_block L=4"] == [[0, 0], [1, 1.0], [2, 1.2], [3, 1.0]]
    assert lines["vanilla"] == [[0, 0], [1, 0], [2, 0], [3, 0]]
    lines = {each.get_label(): each.get_xydata().tolist() for each in drawn["copy_span"].axes[0].lines}
    assert [place for place, _ in lines["block L=4"]] == [16, 32]


def test_recall_is_a_column_a_line_and_a_figure(probed: list[Row]) -> None:
    scores = [RecallScore(2, 0.75, 0.1, 12), RecallScore(4, 0.5, 0.1, 12)]
    made = [dataclasses.replace(row, evaluate=dataclasses.replace(row.evaluate, recall=scores)) for row in probed]
    assert next(csv.DictReader(io.StringIO(tables.results_csv(made))))["recall_4"] == "0.5"
    assert result_metrics(made[0].evaluate)["recall_2"] == 0.75
    assert tables.probes_csv(made).count(",recall,pairs,,4,0.5,0.1") == 2
    (figure,) = (figure for part in loss_figures(points(made)) for figure, drawing in part if drawing.name == "recall")
    drawn = {each.get_label(): each.get_xydata().tolist() for each in figure.axes[0].lines}
    assert drawn["vanilla"] == drawn["block L=4"] == [[2, 0.75], [4, 0.5]]
    assert drawn["guessing"] == [[2, 0.5], [4, 0.25]]


def test_a_record_without_copies_is_what_it_was(probed: list[Row], tmp_path: Path) -> None:
    """Records of before have no such field, and none is written where there was no probe."""
    plain = dataclasses.replace(probed[0].evaluate, copies=[])
    write_result(tmp_path / "plain.json", plain)
    assert '"copies"' not in (tmp_path / "plain.json").read_text()
    assert read_result(tmp_path / "plain.json", EvaluateResult, "evaluate") == plain
    write_result(tmp_path / "copies.json", probed[0].evaluate)
    assert read_result(tmp_path / "copies.json", EvaluateResult, "evaluate") == probed[0].evaluate
