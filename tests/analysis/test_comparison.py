"""Studies beside each other: which keys differ, whether losses compare, and the same numbers from wherever they lie."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from synthetic import HOSTILE, study_file, write_results

from pipeline import tracking
from pipeline.analysis.page import comparison
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.statistics.compare import Entry, Side, differing, front_names, side_of, verdict
from pipeline.base.errors import UserError
from pipeline.base.files import write_json
from pipeline.base.paths import checkpoint, result
from pipeline.commands import compare as cli
from pipeline.commands.compare_sources import read_sides
from pipeline.results.metrics import BITS_PER_BYTE, LOSS
from pipeline.results.records import BenchmarkResult, EvaluateResult, read_result, write_result
from pipeline.study import Study, cells, pretraining
from tests.browser import chromium


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A finished study of two models, two seeds each, in the working folder, which is called ``here``."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    made = study_file(folder, {"s": (2, 64)}, [4], seeds=[0, 1])
    write_results(made)
    return made


def edited(study: Study, **evaluated: Any) -> Side:
    """The study's side with other values in every record of its evaluation."""
    rows, missing = load_rows(study)
    changed = [dataclasses.replace(row, evaluate=dataclasses.replace(row.evaluate, **evaluated)) for row in rows]
    return side_of("there", study, changed, missing)


def test_equal_records_compare_by_loss_and_only_edited_keys_differ(small: Study) -> None:
    other = dataclasses.replace(small, pretrain=dataclasses.replace(small.pretrain, tokens=7, optimizer="muon"))
    here, there = side_of("here", small, *load_rows(small)), side_of("there", other, *load_rows(small))
    assert verdict([here, there]).warnings == []
    assert verdict([here, there]).measure is LOSS
    tokens = str(small.pretrain.tokens)
    assert differing([here, there]) == [("pretrain.tokens", [tokens, "7"]), ("pretrain.optimizer", ["adamw", "muon"])]
    shared = comparison.shared_table([here, there], verdict([here, there]))
    assert [row[:1] + row[2:] for row in shared.rows] == [
        (name, "+0.0000", "1", "1") for name in ("vanilla-s", "block-s-4-base")
    ]


@pytest.mark.parametrize(
    ("changed", "measure", "compares", "warning"),
    [
        (
            {"tokenizer_hash": "b"},
            BITS_PER_BYTE,
            True,
            "the tokenizers differ: losses in nats per token do not compare",
        ),
        ({"documents_hash": "b"}, BITS_PER_BYTE, False, "the test documents differ (here: 12; there: 12 documents)"),
        ({"documents_hash": "b", "tokenizer_hash": "b"}, BITS_PER_BYTE, False, "the test documents differ"),
        ({"stride": 8}, LOSS, True, "evaluate.stride differs (here: 256; there: 8)"),
        ({"target_tokens": 8}, LOSS, True, "the numbers of target tokens differ (here: 126,000; there: 8)"),
    ],
    ids=["tokenizer", "documents", "both", "stride", "targets"],
)
def test_what_losses_were_measured_on_decides_whether_they_compare(
    small: Study, changed: dict[str, Any], measure: object, compares: bool, warning: str
) -> None:
    sides = [side_of("here", small, *load_rows(small)), edited(small, **changed)]
    by = verdict(sides)
    assert (by.measure, by.compares) == (measure, compares)
    assert len(by.warnings) == 1
    assert by.warnings[0].startswith(warning)
    differences = {row[2] for row in comparison.shared_table(sides, by).rows}
    assert differences == ({"+0.0000"} if compares else {"-"})


def test_a_side_that_does_not_tell_all_is_asked_for_what_it_tells(small: Study) -> None:
    here = side_of("here", small, *load_rows(small))
    there = Side("runs", here.entries, here.settings, {"pretrain.tokens": "5"}, "a GPU", partial=True)
    assert differing([here, there]) == [("pretrain.tokens", [str(small.pretrain.tokens), "5"])]
    first, second = verdict([here, there]).warnings
    assert first.startswith("runs does not say which documents")
    assert second == (
        "generation was measured on different hardware (here: Test CPU, 2 threads, fp32; runs: a GPU): "
        "speeds do not compare"
    )


def test_a_front_is_what_no_model_of_the_study_beats() -> None:
    speeds = {"a": (3.0, 10.0), "b": (3.5, 30.0), "beaten": (3.6, 20.0), "no speed": (1.0, None)}
    entries = [
        Entry(name, "vanilla", 1, {"loss": loss} | ({"x_tokens_per_second": rate} if rate else {}))
        for name, (loss, rate) in speeds.items()
    ]
    assert front_names(Side("a", entries, ["x"], {}, ""), "x", LOSS) == {"a", "b"}


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    cli.run(parser.parse_args(words))


def other_study(folder: Path) -> None:
    """Another study beside the working folder, measured on a device whose name is markup."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = study_file(folder, {"s": (2, 64), "m": (4, 128)}, [2, 4])
        write_results(made)
        for cell in cells(made):
            path = result("benchmark", cell.name)
            record = read_result(path, BenchmarkResult, "benchmark")
            environment = dataclasses.replace(record.environment, device=HOSTILE)
            write_result(path, dataclasses.replace(record, environment=environment))
        result("evaluate", "vanilla-m-0").unlink()


def test_the_command_writes_page_and_tables(small: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other_study(tmp_path / "there")
    run(".", "../there", "--out", "out/a")
    printed = capsys.readouterr()
    assert "vanilla-s        here" in printed.out
    assert "vanilla-s       there" in printed.out
    assert "there against here" in printed.out
    assert "['s', 'm']" in printed.out
    assert "warning: there: results are missing: vanilla-m-0 (evaluate)\n" in printed.err
    with Path("out/a/models.csv").open() as file:
        found = {(row["study"], row["model"]): row for row in csv.DictReader(file)}
    assert len(found) == 2 + 5
    losses = [read_result(result("evaluate", f"vanilla-s-{seed}"), EvaluateResult, "evaluate").loss for seed in (0, 1)]
    assert float(found["here", "vanilla-s"]["loss"]) == pytest.approx(sum(losses) / 2)
    page = Path("out/a/index.html").read_text()
    assert HOSTILE not in page
    assert "vanilla-m-0, stage evaluate" in page
    assert r"block-s-4-base & there & 1 &" in Path("out/a/models.tex").read_text()


def test_what_cannot_be_compared_is_one_line(small: Study, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    Path("file").touch()
    for words, message in (
        ((".", "."), r"^compare \. \.: give two studies or more that differ$"),
        ((".", "../empty"), r"^\.\./empty: no params.yaml there; name a folder that a study was run in$"),
        (
            (".", "nothing"),
            r"^nothing: neither a folder with a params.yaml, nor a git revision of this repository, nor ",
        ),
        ((".", "../empty", "--out", "file"), r"^--out file: it is a file; name a folder$"),
    ):
        with pytest.raises(UserError, match=message):
            run(*words)
    assert not Path("comparison").exists()
    assert not Path("mlflow.db").exists()


@pytest.mark.slow
def test_an_mlflow_experiments_runs_are_the_studys_numbers(
    small: Study, mlflow_database: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    for cell in cells(small):
        trained = read_result(result("evaluate", cell.name), EvaluateResult, "evaluate").cell
        keys = dataclasses.asdict(pretraining(small, cell)) | {"padding": True}
        record = {"cell": dataclasses.asdict(trained), "fingerprint": trained.fingerprint, "pretrain": keys}
        write_json(checkpoint(cell.name) / "config.json", record)
        tracking.sync_cell(small.name, cell.name)
    here, there = read_sides([".", small.name])
    curves = ("tokens", "training_flops")  # those of a run end where its curve does, which is made up here
    numbers = [
        {(entry.name, entry.series, entry.seeds): entry.values.items() for entry in side.entries}
        for side in (here, there)
    ]
    for name, expected in numbers[0].items():
        found = {key: value for key, value in numbers[1][name] if key not in curves}
        assert found == pytest.approx({key: value for key, value in expected if key not in curves})
    assert there.settings == here.settings
    assert differing([here, there]) == []
    (warning,) = verdict([here, there]).warnings
    assert "does not say which documents" in warning
    assert there.keys["pretrain.tokens"] == str(small.pretrain.tokens)
    with pytest.raises(UserError, match=r"^nothing: neither a folder with a params.yaml, nor a git revision of this"):
        read_sides([".", "nothing"])


def shell(command: str) -> None:
    subprocess.run(command, shell=True, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["git add results", "dvc add results"])
def test_a_revisions_results_come_from_git_or_from_dvcs_cache(small: Study, kept: str) -> None:
    """Those of the revision, whatever lies in the working folder."""
    name = "-c user.name=a -c user.email=a@b"
    shell(f"git init -q && dvc init -q && {kept} && git add . && git {name} commit -qm Results")
    expected = read_sides(["."])[0]
    for cell in cells(small):
        path = result("evaluate", cell.name)
        record = read_result(path, EvaluateResult, "evaluate")
        write_result(path, dataclasses.replace(record, loss=record.loss + 1))
    found, here = read_sides(["HEAD", "."])
    assert (found.label, here.label) == ("HEAD", "here")
    assert found.entries == expected.entries
    assert here.entries != expected.entries
    shell(f"git rm -rq --cached . && git {name} commit -qm Nothing --allow-empty")
    with pytest.raises(UserError, match=r"^HEAD: no params.yaml in it"):
        read_sides(["HEAD", "."])


@pytest.mark.slow
def test_the_page_draws_every_study_and_fits_a_telephone(small: Study, tmp_path: Path) -> None:
    other_study(tmp_path / "there")
    run(".", "../there", "--out", "out")
    with chromium() as browser:
        screen = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.get(f"file://{Path('out/index.html').resolve()}")
        deadline = time.monotonic() + 60
        while not browser.execute_script("return document.getElementById('plot').dataset.drawn"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        marks = browser.execute_script("return document.querySelectorAll('#plot .mark-symbol.role-mark path').length")
        assert marks == 2 * (2 + 5)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        assert browser.execute_script("const {scrollWidth, clientWidth} = plot; return scrollWidth <= clientWidth")
        assert browser.get_log("browser") == []
