"""Scores along training in the table and the figure."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.figures.along import along_figures
from pipeline.analysis.page import tables
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Row, points
from pipeline.results.records import EvaluateResult, RecallScore, Waypoint, read_result, write_result

AT = [1000, 2000]


def along(row: Row) -> Row:
    """The row with scores on the way that are worse by 2 and 1 nats."""
    final = dataclasses.replace(row.evaluate, recall=[RecallScore(4, 1.0, 0.0, 16)])
    way = [
        Waypoint(tokens, dataclasses.replace(final, loss=final.loss + worse, recall=[RecallScore(4, 0.5, 0.1, 16)]))
        for tokens, worse in zip(AT, (2, 1), strict=True)
    ]
    return dataclasses.replace(row, evaluate=dataclasses.replace(final, along=way))


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (2, 64)}, [4])
    write_results(study)
    return [along(row) for row in load_rows(study)[0]]


def test_a_record_with_waypoints_is_read_as_it_was_written(rows: list[Row], tmp_path: Path) -> None:
    write_result(tmp_path / "record.json", rows[0].evaluate)
    assert read_result(tmp_path / "record.json", EvaluateResult, "evaluate") == rows[0].evaluate


def test_every_score_is_a_line_of_the_table_to_the_final_one(rows: list[Row]) -> None:
    lines = [line for line in csv.DictReader(io.StringIO(tables.along_csv(rows))) if line["cell"] == rows[1].name]
    final, tokens = rows[1].evaluate.loss, rows[1].pretrain.tokens
    losses = {int(line["tokens"]): float(line["value"]) for line in lines if line["metric"] == "loss"}
    assert losses == {1000: final + 2, 2000: final + 1, tokens: final}
    found = {int(line["tokens"]): line["value"] for line in lines if line["metric"] == "recall_4"}
    assert found == {1000: "0.5", 2000: "0.5", tokens: "1.0"}
    assert {line["metric"] for line in lines} >= {"bits_per_byte", "cloze_acc"}
    assert not {line["metric"] for line in lines} & {"unigram_loss", "documents", "evaluate_seconds"}


def test_a_training_that_diverged_has_no_final_score(rows: list[Row]) -> None:
    diverged = [dataclasses.replace(row, pretrain=dataclasses.replace(row.pretrain, diverged=True)) for row in rows]
    lines = csv.DictReader(io.StringIO(tables.along_csv(diverged)))
    assert {int(line["tokens"]) for line in lines} == set(AT)


def test_the_figure_has_a_panel_a_score_and_a_line_a_model(rows: list[Row]) -> None:
    ((figure, drawing),) = along_figures(points(rows))
    assert drawing.name == "along"
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert {"Loss (nats per token)", "Recall of 4 pairs"} <= panels.keys()
    vanilla, block = panels["Recall of 4 pairs"].lines
    assert list(block.get_xdata()) == [*AT, rows[1].pretrain.tokens]
    assert list(vanilla.get_ydata()) == [0.5, 0.5, 1.0]
    plain = [dataclasses.replace(row, evaluate=dataclasses.replace(row.evaluate, along=[])) for row in rows]
    assert list(along_figures(points(plain))) == []
