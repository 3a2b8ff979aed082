"""A metric is declared once, on its record: results.csv, MLflow and the report show it under one name."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.utils.validation import _validate_metric_name

from pipeline.analysis.page import tables
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Row
from pipeline.results.curve import last_row, read_curve, read_rows
from pipeline.results.metrics import BITS_PER_BYTE, LOSS, MEASURES, PARAMETERS, all_metrics, own_metric, result_metrics
from pipeline.results.records import STAGES, EvaluateResult, PretrainResult, SettingResult, TaskScore
from tests.analysis.synthetic import study_file, write_results


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Row]]:
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = study_file(folder, {"s": (2, 64)}, [2], others=True)
        write_results(study)
        yield load_rows(study)[0]


def columns(rows: list[Row]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tables.results_csv(rows))))


def test_mlflow_gets_each_number_of_the_csv_under_its_column(rows: list[Row]) -> None:
    """But for the commas that it takes in no name."""
    for row, column in zip(rows, columns(rows), strict=True):
        logged: dict[str, float] = {}
        for stage in STAGES:
            found = result_metrics(getattr(row, stage))
            assert found.keys().isdisjoint(logged.keys())
            logged |= found
        numbers = [metric.key for metric in all_metrics(rows) if column[metric.key]]
        assert len(numbers) > 20
        for key in numbers:
            assert logged[key.replace(",", "")] == float(column[key])


def test_mlflow_takes_every_name(rows: list[Row]) -> None:
    odd = TaskScore("task, of (odd) <b>", "acc,none", 0.5, None, 1, "1")
    evaluate = dataclasses.replace(rows[0].evaluate, tasks=[odd])
    for name in (*result_metrics(evaluate), *result_metrics(rows[0].benchmark), *result_metrics(rows[0].pretrain)):
        _validate_metric_name(name)
    assert result_metrics(evaluate)["task of odd b_accnone"] == 0.5


def test_what_mlflow_alone_shows_is_told_apart_by_its_stage(rows: list[Row]) -> None:
    """Both pretraining and evaluation count targets and seconds."""
    row = next(row for row in rows if row.name == "vanilla-s-0")
    pretrain, evaluate = result_metrics(row.pretrain), result_metrics(row.evaluate)
    assert pretrain["training_target_tokens"] == row.pretrain.target_tokens
    assert evaluate["target_tokens"] == row.evaluate.target_tokens
    assert pretrain["training_seconds"] == row.pretrain.seconds
    assert evaluate["evaluate_seconds"] == row.evaluate.seconds
    assert pretrain["training_memory"] == row.pretrain.peak_memory
    assert pretrain["parameters_head"] == row.pretrain.parameters["head"]
    assert "training_memory" not in columns(rows)[0]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_is_nowhere(rows: list[Row], value: float) -> None:
    bad = dataclasses.replace(rows[0].evaluate, loss=value)
    assert "loss" not in result_metrics(bad)
    assert columns([dataclasses.replace(rows[0], evaluate=bad), rows[1]])[0]["loss"] == ""


def test_a_cell_that_diverged_has_every_number_but_its_quality(rows: list[Row]) -> None:
    diverged = dataclasses.replace(rows[0], pretrain=dataclasses.replace(rows[0].pretrain, diverged=True))
    (column, other) = columns([diverged, rows[1]])
    empty = {key for key, value in column.items() if not value} - {key for key, value in other.items() if not value}
    quality = {"loss", "perplexity", "word_perplexity", "bits_per_byte", "train_loss", "validation_loss"}
    assert empty >= quality | {"cloze_acc", "continuation_acc"}
    assert column["decode_heavy_tokens_per_second"]
    assert column["diverged"] == "True"
    logged = result_metrics(rows[0].evaluate, diverged=True)
    assert logged.keys().isdisjoint(quality | {"cloze_acc"})
    assert "unigram_loss" in logged


def test_labels_name_the_unit_and_the_setting(rows: list[Row]) -> None:
    labels = {metric.key: metric.label for metric in all_metrics(rows)}
    assert LOSS.label == "Loss (nats per token)"
    assert labels["training_seconds"] == "Training time (s)"
    assert labels["decode_heavy_time_to_first_token"] == "decode-heavy time to first token (s)"
    assert labels["decode_heavy_limit"] == "decode-heavy roofline tokens/s"
    assert (BITS_PER_BYTE.key, BITS_PER_BYTE.lower, PARAMETERS.logarithmic) == ("bits_per_byte", True, True)


def test_no_two_columns_have_one_name(rows: list[Row]) -> None:
    names = [metric.key for metric in all_metrics(rows)]
    assert len(set(names)) == len(names)
    assert set(names).isdisjoint(tables.IDENTITY)


@pytest.mark.parametrize("kind", [PretrainResult, EvaluateResult, SettingResult])
def test_every_declaration_is_of_a_number(kind: type) -> None:
    types = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    assert MEASURES[kind]
    for name in MEASURES[kind]:
        assert types[name].startswith(("Annotated[int,", "Annotated[float,", "Annotated[float | None,"))


def test_the_mean_over_seeds_needs_every_seed(rows: list[Row]) -> None:
    @dataclasses.dataclass
    class Seeds:
        rows: list[Row]

    lacking = dataclasses.replace(rows[1], evaluate=dataclasses.replace(rows[1].evaluate, loss=math.nan))
    assert LOSS.of(Seeds([rows[0], rows[0]])) == rows[0].evaluate.loss
    assert LOSS.of(Seeds([rows[0], lacking])) is None
    assert own_metric("evaluate", "loss").read(rows[0].evaluate) == rows[0].evaluate.loss
    assert STAGES[LOSS.stage] is EvaluateResult


def test_a_curve_whose_last_line_was_cut_short_is_read_without_it(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,tokens,validation_loss\n1,10,\n2,20,5.5\n3,3")
    assert [row["step"] for row in read_rows(path)] == ["1", "2"]
    curve = read_curve(path)
    assert curve["tokens"] == [10.0, 20.0]
    assert math.isnan(curve["validation_loss"][0])
    assert read_curve(tmp_path / "absent.csv") == {}


def test_the_last_row_of_a_curve_is_that_of_all_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    assert last_row(path) == {}
    path.write_text("step,loss_1\n")
    assert last_row(path) == {}
    for count in (1, 2, 9000):
        path.write_text("step,loss_1\n" + "".join(f"{step},2.5\n" for step in range(count)) + f"{count},2")
        assert last_row(path) == read_rows(path)[-1] == {"step": str(count - 1), "loss_1": "2.5"}
    path.write_bytes(b"\xff\xfe\n1,2\n")
    assert last_row(path) == {}
