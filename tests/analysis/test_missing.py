"""A report of what there is: one broken, foreign or diverged cell costs one cell, and is named with its reason."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.page import tables
from pipeline.analysis.page.report import write_report
from pipeline.analysis.rows.load import Missing, load_rows, told
from pipeline.analysis.rows.points import Row
from pipeline.analysis.statistics.findings import Findings, find
from pipeline.base.errors import UserError
from pipeline.base.paths import checkpoint, result
from pipeline.results.failures import failure, failure_noted
from pipeline.results.records import STAGES, BenchmarkResult, EvaluateResult, PretrainResult, read_result, write_result
from pipeline.study import Study, cells, load_study
from stages import report

CELL = "block-m-4-base-0"


def change(stage: str, **values: object) -> None:
    """Change fields of the cell's record; those of its identity by the names ``name`` and ``fingerprint``."""
    path = result(stage, CELL)
    record = read_result(path, STAGES[stage], stage)
    own = {key: values.pop(key) for key in ("name", "fingerprint") if key in values}
    write_result(path, dataclasses.replace(record, cell=dataclasses.replace(record.cell, **own), **values))


def write(stage: str, content: bytes) -> None:
    result(stage, CELL).write_bytes(content)


def fail(stage: str, error: Exception) -> None:
    result(stage, CELL).unlink()
    with pytest.raises(type(error)), failure_noted(stage, CELL):
        raise error


def folder_in_its_place() -> None:
    result("evaluate", CELL).unlink()
    result("evaluate", CELL).mkdir()


FAULTS: dict[str, tuple[Callable[[], object], str, str]] = {
    "no training": (result("pretrain", CELL).unlink, "pretrain", f"results/pretrain/{CELL}.json: no such result; run"),
    "no evaluation": (result("evaluate", CELL).unlink, "evaluate", "run `dvc repro` (stage evaluate) first"),
    "no benchmark": (result("benchmark", CELL).unlink, "benchmark", "run `dvc repro` (stage benchmark) first"),
    "failed": (
        lambda: fail("pretrain", UserError("w: a Git\nLFS pointer")),
        "pretrain",
        "it failed: w: a Git LFS pointer",
    ),
    "crashed": (
        lambda: fail("benchmark", ZeroDivisionError("by 0")),
        "benchmark",
        "failed: ZeroDivisionError: by 0",
    ),
    "secret": (lambda: fail("evaluate", UserError("http://u:secret@host")), "evaluate", "it failed: http://"),
    "empty": (lambda: write("evaluate", b""), "evaluate", f"results/evaluate/{CELL}.json: empty;"),
    "cut short": (
        lambda: write("pretrain", b'{"cell": {'),
        "pretrain",
        f"results/pretrain/{CELL}.json: not valid JSON",
    ),
    "not text": (lambda: write("benchmark", b"\xff\xfe\x00"), "benchmark", "not valid JSON"),
    "an array": (lambda: write("evaluate", b"[1, 2]"), "evaluate", "not a result of stage evaluate"),
    "another stage's": (
        lambda: write("benchmark", result("pretrain", CELL).read_bytes()),
        "benchmark",
        f"results/benchmark/{CELL}.json: not a result of stage benchmark",
    ),
    "nan": (lambda: write("evaluate", b'{"loss": NaN}'), "evaluate", "not a result of stage evaluate"),
    "a folder": (folder_in_its_place, "evaluate", f"results/evaluate/{CELL}.json: cannot be read"),
    "another cell's": (lambda: change("evaluate", name="vanilla-s-0"), "evaluate", "a result of cell 'vanilla-s-0'"),
    "other weights": (lambda: change("benchmark", fingerprint="old"), "benchmark", "measured on weights 'old'"),
    "other documents": (lambda: change("evaluate", documents_hash="7"), "evaluate", "documents_hash is '7', but 'dddd"),
    "other tokens": (lambda: change("evaluate", tokenizer_hash="7"), "evaluate", "tokenizer_hash is '7'"),
    "other stride": (lambda: change("evaluate", stride=7), "evaluate", "stride is 7, but 256 for vanilla-s-0"),
    "other targets": (lambda: change("evaluate", target_tokens=7), "evaluate", "target_tokens is 7"),
    "losses lost": (lambda: change("evaluate", nats_by_document=[1.0]), "evaluate", "1 losses of 12 documents"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_cell_costs_one_cell_and_is_named(study: Study, fault: str) -> None:
    spoil, stage, reason = FAULTS[fault]
    spoil()
    rows, missing = load_rows(study)
    untimed = fault in ("no benchmark", "crashed")
    assert [row.name for row in rows] == [cell.name for cell in cells(study) if untimed or cell.name != CELL]
    assert [row.name for row in rows if not row.timed] == [CELL] * untimed
    ((cell, at, why, absent),) = [dataclasses.astuple(each) for each in missing]
    assert (cell, at, absent) == (CELL, stage, fault in ("no training", "no evaluation", "no benchmark"))
    assert reason in why
    assert "secret" not in why
    assert why.isprintable()
    findings = find(rows, missing)
    assert why in tables.terminal_table(findings).splitlines()[-1]
    assert tables.results_markdown(findings).splitlines()[-3:] == ["Missing results:", "", f"- {missing[0]}"]


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("pretrain", "are not trained; `dvc repro` trains them"),
        ("benchmark", "are not timed, so they have no speed; `dvc repro` times them"),
    ],
)
def test_many_cells_without_a_stage_are_one_line(stage: str, words: str) -> None:
    absent = [Missing(f"vanilla-{size}-0", stage, "no such result", absent=True) for size in "abcd"]
    failed = Missing("vanilla-e-0", stage, "it failed")
    assert told([absent[0], failed]) == [f"vanilla-a-0, stage {stage}: no such result", str(failed)]
    assert told([*absent, failed]) == [
        str(failed),
        f"4 cells {words}: vanilla-a-0, vanilla-b-0, vanilla-c-0, vanilla-d-0",
    ]


def test_the_first_cell_being_foreign_does_not_make_the_others_so(study: Study) -> None:
    path = result("evaluate", "vanilla-s-0")
    write_result(path, dataclasses.replace(read_result(path, EvaluateResult, "evaluate"), stride=7))
    assert [each.cell for each in load_rows(study)[1]] == ["vanilla-s-0"]


def test_missing_cells_are_in_the_order_of_the_grid(study: Study) -> None:
    lost = [cells(study)[at].name for at in (5, 1, 3)]
    for stage, name in zip(STAGES, lost, strict=True):
        result(stage, name).unlink()
    assert [each.cell for each in load_rows(study)[1]] == [cell.name for cell in cells(study) if cell.name in lost]


def test_a_study_with_no_finished_cell_is_refused_in_one_line(study: Study) -> None:
    for cell in cells(study):
        result("evaluate", cell.name).unlink()
    with pytest.raises(UserError, match=r"no cell is trained and evaluated; run `dvc repro` \(vanilla-s-0, stage eval"):
        load_rows(study)


def test_a_noted_failure_is_gone_once_the_stage_succeeds(study: Study) -> None:
    fail("pretrain", UserError("out of luck"))
    assert failure("pretrain", CELL) == "out of luck"
    with failure_noted("pretrain", CELL):
        assert failure("pretrain", CELL) is None
    write_results(study)
    assert load_rows(study)[1] == []


def test_a_failure_of_before_a_result_is_no_reason(study: Study) -> None:
    """The stage was run again by other means, such as `dvc checkout`."""
    fail("benchmark", UserError("out of luck"))
    write_results(study)
    assert load_rows(study)[1] == []


@pytest.mark.usefixtures("mlflow_database", "no_png")
def test_the_stage_reports_what_there_is_and_fails(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC then runs it again; ``--finished`` takes what is missing for no error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))  # of the process that tells MLflow
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["stages.report"])
    write_results(study_file(tmp_path, {"s": (4, 64)}, [2], few_figures=True))
    result("evaluate", "vanilla-s-0").unlink()
    with pytest.raises(SystemExit) as ended:
        report.main()
    ran = capsys.readouterr()
    assert ended.value.code == 1
    assert ran.out.splitlines()[-1] == (
        "missing: vanilla-s-0, stage evaluate: results/evaluate/vanilla-s-0.json: no such result; "
        "run `dvc repro` (stage evaluate) first"
    )
    assert ran.err.splitlines() == [
        "error: report: made without results of vanilla-s-0, as said above; `dvc repro` goes on with what is missing"
    ]
    page = Path("report/index.html").read_text()
    assert "Results are missing for 1 of 2 cells" in page
    assert "results/evaluate/vanilla-s-0.json: no such result" in page
    told = json.loads(Path("report/report.json").read_text())
    assert [each["cell"] for each in told["missing"]] == ["vanilla-s-0"]
    monkeypatch.setattr(sys, "argv", ["stages.report", "--finished"])
    monkeypatch.setattr("pipeline.tracking.catch_up", lambda *_: None)
    report.main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of which the best cell diverged, with its report."""
    folder = tmp_path_factory.mktemp("diverged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = study_file(folder, {"s": (4, 128), "m": (6, 192)}, [2], few_figures=True)
        write_results(study)
        path = result("pretrain", "vanilla-m-0")
        write_result(path, dataclasses.replace(read_result(path, PretrainResult, "pretrain"), diverged=True))
        write_report(study, folder / "report")
    return folder


@pytest.fixture
def diverged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Findings:
    monkeypatch.chdir(folder)
    return find(*load_rows(load_study()))


def test_a_diverged_cell_is_marked_in_every_table_and_has_no_loss(diverged: Findings) -> None:
    loss = f"{next(row for row in diverged.rows if row.name == 'vanilla-m-0').evaluate.loss:.4g}"
    folder = Path("report")
    (line,) = [line for line in (folder / "results.md").read_text().splitlines() if "vanilla-m-0" in line]
    assert line.startswith("| vanilla-m-0 (diverged) |")
    (printed,) = [line for line in tables.terminal_table(diverged).splitlines() if "vanilla-m-0" in line]
    assert printed.startswith("vanilla-m-0 (diverged)")
    assert "*" not in printed
    page = (folder / "index.html").read_text()
    assert '<th scope="row">vanilla-m-0 (diverged)</th>' in page
    assert '<th scope="row">vanilla-m-0</th>' not in page
    assert [text for text in (line, printed) if loss in text] == []
    for name in ("results.csv", "pareto.csv", "curves.csv"):
        for row in csv.DictReader(io.StringIO((folder / name).read_text())):
            assert row["diverged"] == str(row["cell"] == "vanilla-m-0")
            assert row.get("loss", "-") != "" or row["cell"] == "vanilla-m-0"
    metrics = json.loads((folder / "metrics/vanilla-m-0.json").read_text())
    assert [key for key in metrics if "tokens_per_second" not in key] == []


@pytest.mark.parametrize("number", range(8))
def test_whichever_cell_diverges_is_marked_and_no_other(rows: list[Row], number: int) -> None:
    name, spoilt = rows[number].name, list(rows)
    spoilt[number] = dataclasses.replace(
        rows[number], pretrain=dataclasses.replace(rows[number].pretrain, diverged=True)
    )
    findings = find(spoilt)
    marks = [f"{name} (diverged)"]
    for text in (tables.terminal_table(findings), tables.results_markdown(findings), tables.results_latex(findings)):
        assert re.findall(r"[\w-]+ \(diverged\)", text.replace("\\_", "_")) == marks
    for record in csv.DictReader(io.StringIO(tables.results_csv(spoilt))):
        assert (record["loss"] == "", record["diverged"]) == (record["cell"] == name, str(record["cell"] == name))
    fronts = [point for front in findings.fronts.values() for point in (*front.front, *front.dominated)]
    assert name not in {row.name for point in fronts for row in point.rows} != set()


def test_a_diverged_cell_is_on_no_front_and_in_no_comparison(folder: Path) -> None:
    told = json.loads((folder / "report/report.json").read_text())
    assert told["diverged"] == ["vanilla-m-0"]
    assert all("vanilla-m-0" not in names for names in told["pareto"].values())
    assert any("vanilla-m-0" in note and "diverged" in note for note in told["notes"])
    assert not any("unigram" in note for note in told["notes"])
    assert "vanilla-m-0" not in json.dumps([told["speedup"], told["exceptions"], told["headline"]])


@pytest.mark.usefixtures("no_png")
def test_a_study_of_which_every_cell_diverged_has_a_report(study: Study, tmp_path: Path) -> None:
    for cell in cells(study):
        path = result("pretrain", cell.name)
        write_result(path, dataclasses.replace(read_result(path, PretrainResult, "pretrain"), diverged=True))
    findings = write_report(study, tmp_path / "report")
    assert findings.headline == "No model of the study was trained without diverging."
    assert (tmp_path / "report/index.html").read_text().count("(diverged)") >= len(cells(study))
    assert len(tables.terminal_table(findings).splitlines()) >= len(cells(study)) + 2


def test_a_missing_curve_and_a_missing_setting_cost_no_cell(study: Study) -> None:
    (checkpoint(CELL) / "curve.csv").unlink()
    path = result("benchmark", CELL)
    record = read_result(path, BenchmarkResult, "benchmark")
    write_result(path, dataclasses.replace(record, settings={"decode_heavy": record.settings["decode_heavy"]}))
    rows, missing = load_rows(study)
    assert (len(rows), missing) == (len(cells(study)), [])
    assert any(f"{CELL[:-2]} has no finite prefill_heavy" in note for note in find(rows).notes)
