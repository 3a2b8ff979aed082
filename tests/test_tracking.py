"""MLflow holds one run per cell, whatever happens to the processes that write it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import tracking
from pipeline.base import paths
from pipeline.base.files import write_json, write_text
from pipeline.results.records import CellIdentity, Environment, EvaluateResult, PretrainResult, Waypoint, write_result

ENVIRONMENT = Environment("test processor", 2, "fp32", "2.13.0", "3.11.7", "0" * 40, False)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def identity(fingerprint: str = "a") -> CellIdentity:
    return CellIdentity("block-s-4-base-0", "block", "s", 0, 4, "base", fingerprint)


def write_checkpoint(fingerprint: str, steps: int) -> None:
    cell = identity(fingerprint)
    folder = paths.checkpoint(cell.name)
    record = {"cell": dataclasses.asdict(cell), "fingerprint": fingerprint, "model": {"block_length": 4}}
    write_json(folder / "config.json", record)
    rows = [f"{step},{1000 + step},{5 - step / 10},{4.75 if step == 4 else ''}" for step in range(1, steps + 1)]
    write_text(folder / "curve.csv", "\n".join(["step,time,train_loss,validation_loss", *rows]) + "\n")


def write_pretrain_result(fingerprint: str) -> None:
    result = PretrainResult(
        cell=identity(fingerprint), environment=ENVIRONMENT, parameters={"head": 10}, non_embedding_parameters=5,
        total_parameters=15, steps=4, tokens=100, target_tokens=90, training_flops=1e6, train_loss=4.5,
        validation_loss=4.75, seconds=2.0, tokens_per_second=50.0, peak_memory=1,
    )  # fmt: skip
    write_result(paths.result("pretrain", result.cell.name), result)


def evaluated(loss: float, along: dict[int, float] | None = None) -> EvaluateResult:
    return EvaluateResult(
        cell=identity("a"), environment=ENVIRONMENT, loss=loss, loss_stderr=None, perplexity=2.0, word_perplexity=2.0,
        bits_per_byte=1.0, unigram_loss=6.0, documents=1, skipped_documents=0, target_tokens=1, bytes=1, words=1,
        stride=1, loss_by_block_position=[], loss_by_context=[], tasks=[], needle=[], samples=[], documents_hash="",
        tokenizer_hash="", lm_eval="", seconds=1.0,
        along=[Waypoint(tokens, evaluated(then)) for tokens, then in (along or {}).items()],
    )  # fmt: skip


@pytest.mark.usefixtures("mlflow_database")
def test_scores_along_training_are_curves_over_tokens_to_the_final_one(workspace: Path) -> None:
    name = identity().name
    write_checkpoint("a", steps=4)
    write_pretrain_result("a")
    for way in ({25: 5.0, 50: 4.0}, {25: 5.0, 50: 4.0}, {25: 5.0, 50: 4.0, 75: 3.75}):
        write_result(paths.result("evaluate", name), evaluated(3.5, way))
        tracking.sync_cell("study", name)
        mlflow = tracking.client()
        experiment = mlflow.get_experiment_by_name("study")
        assert experiment is not None
        (run,) = mlflow.search_runs([experiment.experiment_id])
        history = mlflow.get_metric_history(run.info.run_id, "along/loss")
        assert sorted((metric.step, metric.value) for metric in history) == [*way.items(), (100, 3.5)]
    assert run.data.metrics["loss"] == run.data.metrics["along/loss"] == 3.5
    assert "along/unigram_loss" not in run.data.metrics


def test_an_experiment_of_dvcs_queue_writes_to_the_repositorys_database(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking.tracking_uri() == f"sqlite:///{workspace}/mlflow.db"
    copy = workspace / ".dvc/tmp/exps/tmpabc/inner"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert tracking.tracking_uri() == f"sqlite:///{workspace}/inner/mlflow.db"


@pytest.mark.usefixtures("mlflow_database")
def test_a_run_is_one_however_often_it_is_synced(workspace: Path) -> None:
    name = identity().name
    write_checkpoint("a", steps=2)
    tracking.sync_cell("study", name)
    write_checkpoint("a", steps=4)
    write_pretrain_result("a")
    for _ in range(2):
        tracking.sync_cell("study", name)

    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name("study")
    assert experiment is not None
    (run,) = mlflow.search_runs([experiment.experiment_id])
    assert run.info.run_name == name
    assert run.info.status == "FINISHED"
    history = mlflow.get_metric_history(run.info.run_id, "train_loss")
    curve = [(metric.step, metric.timestamp, metric.value) for metric in history]
    assert sorted(curve) == [(step, 1000 + step, 5 - step / 10) for step in (1, 2, 3, 4)]
    assert run.data.metrics["validation_loss"] == 4.75
    assert run.data.metrics["parameters_head"] == 10
    assert run.data.params["model.block_length"] == "4"
    assert run.data.tags["family"] == "block"
    assert run.data.tags["pretrain.hardware"] == "test processor, 2 threads, fp32"
    assert [entry.path for entry in mlflow.list_artifacts(run.info.run_id)] == ["config.yaml"]

    write_checkpoint("b", steps=1)
    tracking.sync_cell("study", name)
    runs = {run.data.tags["fingerprint"]: run for run in mlflow.search_runs([experiment.experiment_id])}
    assert set(runs) == {"a", "b"}
    assert runs["a"].data.tags["superseded"] == "true"
    assert "total_parameters" not in runs["b"].data.metrics, "the old weights' results belong to the old run"


def write_report(folder: Path, fronts: dict[str, list[str]]) -> None:
    speedup = {"decode_heavy": {"loss": 3.5, "ratio": 2.0}}
    write_json(folder / "report.json", {"headline": "Twice as fast.", "speedup": speedup, "pareto": fronts})
    write_text(folder / "figures" / "curves.svg", "<svg/>")


@pytest.mark.usefixtures("mlflow_database")
def test_a_report_flags_the_cells_on_its_fronts(workspace: Path) -> None:
    name = identity().name
    for fingerprint in ("old", "new"):
        write_checkpoint(fingerprint, steps=1)
        tracking.sync_cell("study", name)
        write_report(workspace / "report", {"decode_heavy": [name], "gone": []})
        tracking.sync_report("study", workspace / "report")
    write_report(workspace / "report", {"decode_heavy": [], "decode_heavy_memory": [name]})
    for _ in range(2):
        tracking.sync_report("study", workspace / "report")

    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name("study")
    assert experiment is not None
    runs = {run.data.tags.get("fingerprint"): run for run in mlflow.search_runs([experiment.experiment_id])}
    flags = {
        fingerprint: {key: value for key, value in run.data.tags.items() if key.startswith("pareto.")}
        for fingerprint, run in runs.items()
    }
    assert flags == {"new": {"pareto.decode_heavy": "false", "pareto.decode_heavy_memory": "true"}, "old": {}, None: {}}
    report = runs[None]
    assert report.data.metrics == {"speedup.decode_heavy.loss": 3.5, "speedup.decode_heavy.ratio": 2.0}
    assert report.data.tags["mlflow.note.content"] == "Twice as fast."
    assert [entry.path for entry in mlflow.list_artifacts(report.info.run_id, "figures")] == ["figures/curves.svg"]


@pytest.mark.slow
def test_cells_that_start_together_on_a_fresh_database(workspace: Path, root: Path) -> None:
    write_checkpoint("a", steps=1)
    code = f"from pipeline import tracking; tracking.sync_cell('study', {identity().name!r})"
    environment = os.environ | {"PYTHONPATH": str(root)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=workspace, env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    errors = [process.communicate()[1].decode() for process in processes]
    assert not any("warning" in error for error in errors), errors
    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name("study")
    assert experiment is not None
    assert len(mlflow.search_runs([experiment.experiment_id])) == 1


def test_a_tracker_that_is_away_costs_a_warning(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write_checkpoint("a", steps=1)
    tracking.sync_cell("study", identity().name)
    assert "warning: MLflow is behind for block-s-4-base-0" in capsys.readouterr().err


def tags_of_runs(kind: str = "cell") -> dict[tuple[str | None, str | None], dict[str, str]]:
    """By DVC's experiment and fingerprint, the marks of each run of that kind."""
    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name("study")
    assert experiment is not None
    runs = mlflow.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'")
    marks = ("superseded", "pareto.")
    found = {}
    for run in runs:
        tags = run.data.tags
        own = {key: value for key, value in tags.items() if key.startswith(marks)}
        found[tags.get("dvc_experiment"), tags.get("fingerprint")] = own
    assert len(found) == len(runs)
    return found


def experiment_of_study() -> str:
    experiment = tracking.client().get_experiment_by_name("study")
    assert experiment is not None
    return str(experiment.experiment_id)


def tags_of_the_experiment() -> dict[str, str]:
    """The study's own, its saved views among them."""
    tags: dict[str, str] = tracking.client().get_experiment(experiment_of_study()).tags
    return tags


@pytest.mark.usefixtures("mlflow_database")
def test_a_run_whose_fingerprint_comes_back_is_the_present_one_again(workspace: Path) -> None:
    name = identity().name
    present = {}
    for fingerprint in ("a", "b", "a", "c", "b"):
        write_checkpoint(fingerprint, steps=1)
        for _ in range(2):
            assert tracking.sync_cell("study", name)
        superseded = {key for (_, key), tags in tags_of_runs().items() if "superseded" in tags}
        present[fingerprint] = {key for _, key in tags_of_runs()} - superseded
        assert present[fingerprint] == {fingerprint}


@pytest.mark.usefixtures("mlflow_database")
def test_an_experiment_of_dvc_leaves_the_studys_runs_as_they_are(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = identity().name
    write_checkpoint("a", steps=1)
    assert tracking.sync_cell("study", name)
    write_report(workspace / "report", {"decode_heavy": [name]})
    assert tracking.sync_report("study", workspace / "report")
    study, views = {(None, "a"): {"pareto.decode_heavy": "true"}}, tags_of_the_experiment()
    assert tags_of_runs() == study
    monkeypatch.setenv("DVC_EXP_NAME", "slower")
    for fingerprint in ("a", "b"):
        write_checkpoint(fingerprint, steps=1)
        assert tracking.sync_cell("study", name)
    write_report(workspace / "report", {"decode_heavy": []})
    (run,) = tracking.client().search_runs([experiment_of_study()], "tags.fingerprint = 'b'")
    tracking.client().log_metric(run.info.run_id, "copy_left", 1.0)  # which the study's runs do not have
    assert tracking.sync_report("study", workspace / "report")
    assert tags_of_the_experiment() == views
    assert tags_of_runs() == study | {
        ("slower", "a"): {"superseded": "true"},
        ("slower", "b"): {"pareto.decode_heavy": "false"},
    }
    assert set(tags_of_runs("report")) == {(None, None), ("slower", None)}
    monkeypatch.delenv("DVC_EXP_NAME")
    assert tracking.sync_cell("study", name)
    assert tracking.sync_report("study", workspace / "report")
    assert tags_of_runs() == {
        (None, "a"): {"superseded": "true"},
        ("slower", "a"): {"superseded": "true"},
        (None, "b"): {"pareto.decode_heavy": "false"},
    }, "the experiment was applied: its run is the study's"
