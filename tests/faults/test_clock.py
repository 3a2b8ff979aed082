"""A clock that is set, hours back and forward, while a stage runs."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import time
from pathlib import Path

import pytest

from pipeline import tracking
from pipeline.base import paths
from pipeline.results.records import PretrainResult, read_result, write_result
from tests.faults.clock import HOUR, Clock
from tests.faults.stages import BLOCK, SHORT, VANILLA, hashes, repro, run, start, whole_results
from tests.test_tracking import identity, write_checkpoint, write_pretrain_result

STEPS = 1500


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    (tmp_path / "clock").mkdir()
    return Clock(tmp_path / "clock")


def rows() -> list[dict[str, str]]:
    path = paths.checkpoint(VANILLA) / "curve.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def wait_for_rows(count: int) -> None:
    deadline = time.monotonic() + 120
    while len(rows()) < count:
        assert time.monotonic() < deadline, "training writes no rows"
        time.sleep(0.01)


@pytest.mark.slow
def test_training_while_the_clock_is_set(study: Path, clock: Clock) -> None:
    """Hours forward, then back, then killed and gone on with: the same weights, and no duration is of that clock."""
    Path("params.yaml").write_text(SHORT.replace("tokens: 5120", f"tokens: {STEPS * 256}"))
    run("stages.pretrain", VANILLA)
    expected = hashes(paths.checkpoint(VANILLA))["model.safetensors"]
    for name in ("result.json", "model.safetensors", "curve.csv"):
        (paths.checkpoint(VANILLA) / name).unlink()
    begun = time.monotonic()
    training = start("stages.pretrain", VANILLA, **clock.environment)
    wait_for_rows(20)
    clock.set(9 * HOUR)
    wait_for_rows(len(rows()) + 20)
    clock.set(-5 * HOUR)
    wait_for_rows(len(rows()) + 20)
    training.kill()
    training.communicate()
    assert len(rows()) < STEPS // 2, "the study is too short for the kill to fall into training"
    run("stages.pretrain", VANILLA, **clock.environment)
    elapsed = time.monotonic() - begun
    times = [int(row["time"]) for row in rows()]
    assert max(times) - min(times) > 13 * HOUR * 1000, "the clock was set"
    assert [int(row["step"]) for row in rows()] == list(range(2, STEPS + 1, 2))
    assert all(float(row["tokens_per_second"]) > 256 / elapsed for row in rows())
    assert hashes(paths.checkpoint(VANILLA))["model.safetensors"] == expected
    assert 0 < read_result(paths.result("pretrain", VANILLA), PretrainResult, "pretrain").seconds < elapsed
    for _ in range(2):
        run("pipeline", "tracking", "sync", VANILLA, **clock.environment)
    (found,) = runs()
    history = tracking.client().get_metric_history(found.info.run_id, "train_loss")
    assert sorted(metric.step for metric in history) == list(range(2, STEPS + 1, 2))
    assert found.info.start_time < found.info.end_time


def runs(name: str = "tiny") -> list[tracking.Run]:
    client = tracking.client()
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], "tags.kind = 'cell'"))


@pytest.mark.usefixtures("mlflow_database")
def test_mlflow_shows_what_was_measured_last_though_the_clock_was_set_back(study: Path, clock: Clock) -> None:
    write_checkpoint("a", steps=2)
    write_pretrain_result("a")
    path = paths.result("pretrain", identity().name)
    clock.set(9 * HOUR)
    run("pipeline", "tracking", "sync", identity().name, **clock.environment)
    write_result(path, dataclasses.replace(read_result(path, PretrainResult, "pretrain"), seconds=7.0))
    for _ in range(2):
        assert tracking.sync_cell("tiny", identity().name)
    (found,) = runs()
    assert found.data.metrics["training_seconds"] == 7.0
    assert len(tracking.client().get_metric_history(found.info.run_id, "training_seconds")) == 2
    assert found.info.start_time < found.info.end_time


@pytest.mark.slow
def test_the_study_under_a_clock_that_is_set_all_the_time(repository: Path, clock: Clock) -> None:
    """Each stage ends with durations of a clock that only goes forward, and DVC finds nothing to do again."""
    begun = time.monotonic()
    with clock.jumping():
        repro(repository, **clock.environment)
    elapsed = time.monotonic() - begun
    kept = hashes(Path("checkpoints")) | hashes(Path("data"))
    for stage in ("pretrain", "evaluate", "benchmark"):
        for cell in (VANILLA, BLOCK):
            assert 0 < json.loads(paths.result(stage, cell).read_text())["seconds"] < elapsed
    for path in [path for folder in ("data", "results", "checkpoints") for path in Path(folder).rglob("*")]:
        os.utime(path, (time.time() - 5 * HOUR,) * 2)
    with clock.jumping():
        output = repro(repository, **clock.environment)
    assert "Running stage 'check'" in output
    assert output.count("Running stage") == 1
    assert hashes(Path("checkpoints")) | hashes(Path("data")) == kept
    assert len(whole_results()) == 6
    assert sorted(found.data.tags["cell"] for found in runs()) == sorted([VANILLA, BLOCK])
    assert all(found.info.start_time < found.info.end_time for found in runs())
