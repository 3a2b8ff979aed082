"""Rows come from the study's cells, whole and comparable, or an error says which stage to run."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.figures.style import series_styles
from pipeline.analysis.page import tables
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Row, points, series_of
from pipeline.analysis.statistics.findings import find
from pipeline.base.errors import UserError
from pipeline.base.paths import checkpoint, result
from pipeline.results.curve import read_curve
from pipeline.results.metrics import LOSS, all_metrics
from pipeline.study import Study, cells


def test_rows_are_the_cells_and_not_what_lies_in_the_folder(study: Study) -> None:
    extra = result("pretrain", "vanilla-xxl-0")
    extra.write_bytes(result("pretrain", "vanilla-s-0").read_bytes())
    assert [row.name for row in load_rows(study)[0]] == [cell.name for cell in cells(study)]


def test_a_point_is_the_mean_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (2, 64)}, [4], seeds=[0, 1, 2])
    write_results(study)
    rows = load_rows(study)[0]
    vanilla, block = points(rows)
    assert (vanilla.name, block.name) == ("vanilla-s", "block-s-4-base")
    assert LOSS.of(block) == pytest.approx(sum(row.evaluate.loss for row in rows[3:]) / 3)


def test_series_are_ordered_and_name_the_variant_only_where_it_varies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 128)}, [8, 2], variants=["wide", "deep"])
    write_results(study)
    made = points(load_rows(study)[0])
    assert series_of(made) == ["vanilla", "block L=2 wide", "block L=2 deep", "block L=8 wide", "block L=8 deep"]


def test_results_csv_holds_every_metric_of_every_cell(rows: list[Row]) -> None:
    records = list(csv.DictReader(io.StringIO(tables.results_csv(rows))))
    assert [record["cell"] for record in records] == [row.name for row in rows]
    for row, record in zip(rows, records, strict=True):
        for metric in all_metrics(rows):
            value = metric.value(row)
            assert record[metric.key] == ("" if value is None else str(value))
    assert records[0]["block_length"] == ""


def test_a_number_that_is_not_finite_leaves_its_column_empty(rows: list[Row]) -> None:
    bad = dataclasses.replace(rows[0].evaluate, word_perplexity=float("inf"))
    text = tables.results_csv([dataclasses.replace(rows[0], evaluate=bad), rows[1]])
    assert [record["word_perplexity"] == "" for record in csv.DictReader(io.StringIO(text))] == [True, False]


def test_markdown_has_a_row_a_cell_and_names_the_hardware(rows: list[Row]) -> None:
    lines = tables.results_markdown(find(rows)).splitlines()
    assert lines[0] == "Generation measured on Test CPU, 2 threads, fp32."
    table = [line for line in lines[2:] if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert {line.count("|") for line in table} == {lines[2].count("|")}


def test_the_terminal_table_marks_the_front(rows: list[Row]) -> None:
    findings = find(rows)
    text = tables.terminal_table(findings)
    best = {row.name for point in findings.fronts["decode_heavy"].front for row in point.rows}
    for row in rows:
        line = next(line for line in text.splitlines() if line.startswith(row.name + " "))
        assert line.count("*") == (row.name in best) + (
            row.name in {r.name for p in findings.fronts["prefill_heavy"].front for r in p.rows}
        )


def test_curves_hold_each_validation_once(rows: list[Row]) -> None:
    records = list(csv.DictReader(io.StringIO(tables.curves_csv(rows))))
    steps = [int(record["step"]) for record in records if record["cell"] == "vanilla-s-0"]
    assert steps == [60, 120, 180, 240, 300, 360]


def test_a_damaged_curve_is_named(study: Study) -> None:
    path = checkpoint("vanilla-s-0") / "curve.csv"
    path.write_text("step,tokens\n1,abc\n")
    with pytest.raises(UserError, match=r"vanilla-s-0/curve.csv: not a training curve"):
        read_curve(path)


@pytest.mark.parametrize("content", [b"step,tokens\n1,abc\n", b"\xff\xfe\x00", b"step\n1,2\n3,4\n"])
def test_a_damaged_curve_costs_the_curve_alone(study: Study, content: bytes) -> None:
    (checkpoint("vanilla-s-0") / "curve.csv").write_bytes(content)
    findings = find(*load_rows(study))
    assert "vanilla-s-0" in {row.name for row in findings.rows}
    assert {row["cell"] for row in csv.DictReader(io.StringIO(tables.curves_csv(findings.rows)))} == {
        row.name for row in findings.rows if row.name != "vanilla-s-0"
    }


@pytest.mark.parametrize(
    ("lengths", "variants"), [([2, 4, 8], ["base"]), ([1, 2, 4, 8, 16, 32], ["wide", "deep", "flat"])]
)
def test_no_two_series_look_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: list[int], variants: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"s": (4, 64)}, lengths, variants=variants, others=True)
    write_results(study)
    styles = series_styles(points(load_rows(study)[0]))
    assert len(set(styles.values())) == len(styles) == 2 + len(lengths) * len(variants) + 1


def test_the_short_table_for_latex_has_the_markdowns_cells(study: Study) -> None:
    findings = find(*load_rows(study))
    lines = tables.results_latex(findings).splitlines()
    assert lines[0].startswith("% Generation measured on Test CPU")
    assert lines[1].startswith(r"\begin{tabular}{lr")
    assert (lines[2], lines[4]) == (r"\toprule", r"\midrule")
    body = lines[5 : lines.index(r"\bottomrule")]
    markdown = [line for line in tables.results_markdown(findings).splitlines() if line.startswith("| ")]
    shown = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in markdown[2:]]
    written = [line.removesuffix(r" \\").replace(r"$^\circ$", tables.GUESS).split(" & ") for line in body]
    assert written == shown


def test_latex_sets_every_character_as_it_is() -> None:
    table = tables.TextTable("A & B", ("a_b", "c"), [("50 %", r"x\y {~^} <#$> ± &")])
    assert tables.latex(table).splitlines()[3:6] == [
        r"a\_b & c \\",
        r"\midrule",
        r"50 \% & x\textbackslash{}y \{\textasciitilde{}\textasciicircum{}\} \textless{}\#\$\textgreater{} $\pm$ \& \\",
    ]
