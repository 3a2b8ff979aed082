"""Budgets in the report: quality with its tokens, and no part in what compares models."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.page import tables
from pipeline.analysis.page.report import summary, write_report
from pipeline.analysis.rows.families import kind
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.training import loss_points
from pipeline.analysis.statistics.findings import Findings, find
from pipeline.base.paths import result
from pipeline.results.records import EvaluateResult, PretrainResult, read_result, write_result
from pipeline.study import Study, cells

BUDGETS = [1_500_000, 750_000]


def made(folder: Path, budgets: list[int] | None) -> Study:
    study = study_file(folder, {"s": (4, 128), "m": (6, 192)}, [2, 4], seeds=[0, 1], others=True, budgets=budgets)
    write_results(study)
    return study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    return made(tmp_path, BUDGETS)


def found(study: Study) -> Findings:
    return find(*load_rows(study))


def test_budgets_change_nothing_that_is_compared(study: Study, tmp_path: Path) -> None:
    """Fronts, headline, speed-ups and orders are those of the same study without budgets."""
    with_budgets = found(study)
    assert with_budgets.missing == []
    for path in Path("results").rglob("*-*-*000.json"):
        path.unlink()
    plain = made(tmp_path, None)
    without = found(plain)
    assert [point.name for point in with_budgets.points] == [point.name for point in without.points]
    for name in ("headline", "further", "hypervolumes"):
        assert getattr(with_budgets, name) == getattr(without, name)
    left, right = summary(study, with_budgets), summary(plain, without)
    assert left["cells"] == len(cells(study)) == right["cells"] + 2 * 14
    of_training = {"cells", "notes", "recipes", "scaling", "training_flops", "out_of_sample"}
    assert {key: left[key] for key in left.keys() - of_training} == {
        key: right[key] for key in right.keys() - of_training
    }
    assert tables.pareto_csv(with_budgets.rows, with_budgets.fronts) == tables.pareto_csv(without.rows, without.fronts)


@pytest.mark.usefixtures("no_png")
def test_the_tables_have_their_quality_and_tokens_and_no_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 128)}, [4], seeds=[0, 1], budgets=BUDGETS, few_figures=True)
    write_results(study)
    write_report(study, Path("report"))
    table = {row["cell"]: row for row in csv.DictReader(io.StringIO(Path("report/results.csv").read_text()))}
    assert list(table) == [cell.name for cell in cells(study)]
    whole, budget = table["block-s-4-base-1"], table["block-s-4-base-1-750000"]
    assert (whole["tokens"], budget["tokens"]) == ("3000000", "750000")
    assert float(budget["loss"]) > float(whole["loss"])
    assert float(budget["cloze_acc"]) > 0
    assert (whole["decode_heavy_tokens_per_second"] != "", budget["decode_heavy_tokens_per_second"]) == (True, "")
    findings = found(study)
    name = "vanilla-s-750000 (2 seeds) "
    (line,) = [line for line in tables.terminal_table(findings).splitlines() if line.startswith(name)]
    assert line.removeprefix(name).split()[1] == "750K"
    assert line.split()[-1] == "-"
    assert "| Training tokens |" in tables.results_markdown(findings)
    assert "vanilla-s-0-750000" in Path("report/curves.csv").read_text()
    assert json.loads(Path("report/metrics/vanilla-s-0-750000.json").read_text()).keys() >= {"loss", "bits_per_byte"}


def test_loss_against_tokens_by_model(study: Study) -> None:
    curves = loss_points(load_rows(study)[0])
    assert list(curves) == list(
        dict.fromkeys(cell.model for cell in cells(study) if kind(cell) in ("vanilla", "block"))
    )
    reached = curves["vanilla-s"]
    assert [(each.tokens, each.seed) for each in reached] == [
        (tokens, seed) for tokens in (750_000, 1_500_000, 3_000_000) for seed in (0, 1)
    ]
    record = read_result(result("evaluate", "vanilla-s-1-1500000"), EvaluateResult, "evaluate")
    assert reached[3].loss == record.loss
    assert reached[5].flops == pytest.approx(4 * reached[1].flops)


def test_a_budget_that_diverged_has_no_place_in_a_curve(study: Study) -> None:
    path = result("pretrain", "vanilla-s-0-750000")
    write_result(path, dataclasses.replace(read_result(path, PretrainResult, "pretrain"), diverged=True))
    assert [each.tokens for each in loss_points(load_rows(study)[0])["vanilla-s"]].count(750_000) == 1


def test_a_budget_without_results_is_missing_as_any_cell(study: Study) -> None:
    result("evaluate", "vanilla-s-0-750000").unlink()
    result("pretrain", "block-m-2-base-0-1500000").unlink()
    rows, missing = load_rows(study)
    assert len(rows) == len(cells(study)) - 2
    assert [(each.cell, each.stage) for each in missing] == [
        ("vanilla-s-0-750000", "evaluate"),
        ("block-m-2-base-0-1500000", "pretrain"),
    ]
