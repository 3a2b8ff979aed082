"""A tracking server that dies, hangs, answers 500, or whose database is locked."""

from __future__ import annotations

import csv
import multiprocessing
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline import tracking
from pipeline.base import paths
from pipeline.results.records import PretrainResult, read_result
from pipeline.tracking import follower
from pipeline.tracking.runs import experiment_id
from pipeline.tracking.sync import CURVES, result_metrics
from tests.conftest import ROOT
from tests.faults import trackers
from tests.faults.stages import SHORT, VANILLA, run, start
from tests.test_tracking import identity, write_checkpoint, write_pretrain_result

WARNING = f"warning: MLflow is behind for {VANILLA}"
IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def curve(cell: str) -> list[tuple[int, float]]:
    with (paths.checkpoint(cell) / "curve.csv").open(newline="") as opened:
        return [(int(row["step"]), float(row["train_loss"])) for row in csv.DictReader(opened)]


def assert_trained(steps: int) -> None:
    """The cell's files are whole, and no step is missing."""
    result = read_result(paths.result("pretrain", VANILLA), PretrainResult, "pretrain")
    assert result.steps == steps
    assert [step for step, _ in curve(VANILLA)] == list(range(2, steps + 1, 2))


def only_run(uri: str, cell: str, name: str = "tiny") -> Run:
    """The one run of the cell, which holds the whole curve once and every metric of the result."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], f"tags.cell = '{cell}'")
    history = client.get_metric_history(found.info.run_id, "train_loss")
    assert sorted((metric.step, metric.value) for metric in history) == curve(cell)
    assert found.info.status == "FINISHED"
    result = read_result(paths.result("pretrain", cell), PretrainResult, "pretrain")
    assert (
        result_metrics(result).items()
        - {(key, value) for key, value in result_metrics(result).items() if key in CURVES}
        <= found.data.metrics.items()
    )
    assert [file.path for file in client.list_artifacts(found.info.run_id)] == ["config.yaml"]
    return found


@pytest.mark.slow
def test_a_server_that_answers_500(study: Path) -> None:
    with trackers.broken() as server:
        errors = run("stages.pretrain", VANILLA, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{server.server_port}")
        assert server.asked > 0
    assert WARNING in errors
    assert_trained(20)
    for _ in range(2):
        assert tracking.sync_cell("tiny", VANILLA)
    only_run(tracking.tracking_uri(), VANILLA)


@pytest.mark.slow
def test_training_ends_without_an_answer_from_a_server_that_hangs(study: Path) -> None:
    """Not one request is answered, and not one step waits for that."""
    with trackers.silent() as port:
        errors = run("stages.pretrain", VANILLA, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}", **IMPATIENT)
    assert WARNING in errors
    assert_trained(20)


def test_a_tracker_that_hangs_for_good_is_left(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "LAST_SYNC_SECONDS", 3)
    write_checkpoint("a", steps=1)
    with trackers.silent() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        begun = time.monotonic()
        tracking.catch_up("study", identity().name)
    assert time.monotonic() - begun < 10


def test_a_child_that_holds_the_pipe_does_not_keep_the_tracker_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a data loader's workers do where training ends by an error."""
    (tmp_path / "quick.py").write_text("from pipeline.tracking import follow\nfollow(lambda: None)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setattr(follower, "LAST_SYNC_SECONDS", 20)
    with tracking.following("study", "cell", "quick"):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,))
        child.start()
    assert child.is_alive()
    child.kill()
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_locked_database(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint("a", steps=4)
    write_pretrain_result("a")
    tracking.client()
    locker = sqlite3.connect("mlflow.db", isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    assert not tracking.sync_cell("study", identity().name)
    assert "database is locked" in capsys.readouterr().err
    locker.execute("ROLLBACK")
    for _ in range(2):
        assert tracking.sync_cell("study", identity().name)
    only_run(tracking.tracking_uri(), identity().name, "study")


def test_sync_fails_where_the_server_is_away(study: Path) -> None:
    write_checkpoint("a", steps=1)
    Path("params.yaml").write_text(SHORT)
    process = start("pipeline", "tracking", "sync", MLFLOW_TRACKING_URI="http://user:secret@127.0.0.1:9", **IMPATIENT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("error: MLflow at http://***@127.0.0.1:9 is behind")
    assert "secret" not in errors


@pytest.mark.usefixtures("mlflow_database")
def test_a_run_that_two_requests_made_becomes_one(study: Path) -> None:
    """A server that hung answers the request that timed out as well as its repetition."""
    write_checkpoint("a", steps=4)
    write_pretrain_result("a")
    client = tracking.client()
    experiment = experiment_id(client, "study")
    tags = {"cell": identity().name, "fingerprint": "a", "kind": "cell"}
    for _ in range(2):
        client.create_run(experiment, run_name=identity().name, tags=tags)
    for _ in range(2):
        assert tracking.sync_cell("study", identity().name)
    assert only_run(tracking.tracking_uri(), identity().name, "study").data.params["model.block_length"] == "4"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "stopped", "stopped_at_first"])
def test_a_real_server_that_dies_or_hangs_in_training(study: Path, tmp_path: Path, fault: str) -> None:
    """It is back only after the end; twice brought up to date, it holds one run and the whole curve."""
    steps = 4000
    Path("params.yaml").write_text(SHORT.replace("tokens: 5120", f"tokens: {steps * 256}"))
    with trackers.real(tmp_path / "server") as server:
        if fault == "stopped_at_first":
            server.signal(signal.SIGSTOP)
        training = start("stages.pretrain", VANILLA, MLFLOW_TRACKING_URI=server.uri)
        if fault != "stopped_at_first":
            wait_for_metrics(server.uri)
            server.kill() if fault == "killed" else server.signal(signal.SIGSTOP)
            assert training.poll() is None, "the study is too short for the fault to fall into training"
        _, errors = training.communicate(timeout=300)
        assert training.returncode == 0, errors
        assert "MLflow is behind" in errors
        assert_trained(steps)
        server.start() if fault == "killed" else server.signal(signal.SIGCONT)
        for _ in range(2):
            run("pipeline", "tracking", "sync", VANILLA, MLFLOW_TRACKING_URI=server.uri)
            found = only_run(server.uri, VANILLA)
        assert found.data.params["family"] == "vanilla"


def wait_for_metrics(uri: str) -> None:
    client, deadline = MlflowClient(uri), time.monotonic() + 120
    while time.monotonic() < deadline:
        experiment = client.get_experiment_by_name("tiny")
        if experiment and any(run.data.metrics for run in client.search_runs([experiment.experiment_id])):
            return
        time.sleep(0.2)
    raise AssertionError("no metric came")
