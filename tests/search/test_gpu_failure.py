"""A worker whose GPU fails goes on in a new process, from the trial's last state."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline import tracking
from pipeline.base.again import StartAgain
from pipeline.base.device_failure import DeviceFailure
from pipeline.execution.slurm.task import Worker as Job
from pipeline.execution.stages import Stage
from pipeline.results.environment import describe
from pipeline.results.search import read_search, read_tuning
from pipeline.search.problem import Problem
from pipeline.search.trial import Measured
from pipeline.search.tuning import tune_worker
from pipeline.study.recipe_space import Point
from tests.faults.stages import ROOT
from tests.search.conftest import Searching

FAILING = """
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

import psutil

from pipeline import tracking
from pipeline.search import trial

real, at, failures, module = trial.pretrain, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]


def pretrain(study, cell, on_row):
    def told(row):
        tell("steps", row.step)
        if row.step == at:
            fail()
        on_row(row)

    if at == 0:
        fail()
    return real(study, cell, told)


def fail():
    if len(Path("starts").read_text().splitlines()) <= failures:
        print("half a line", end="")
        raise RuntimeError("CUDA error: unspecified launch failure\\nCUDA errors may be reported later")


def tell(name, line):
    with Path(name).open("a") as opened:
        print(line, file=opened)


tell("starts", [psutil.Process().pid, *psutil.Process().children()])
trial.pretrain = pretrain
if not Path("mlflow.db").exists():
    tracking.following = lambda *_: nullcontext()
del sys.argv[1:4]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""A worker whose GPU fails after a step of training, or before it, in its first processes."""

ONE_MODEL = ("[vanilla-s, block-s-4-base]", "[vanilla-s]")
LOADED = ("checkpoint_every: 4", "checkpoint_every: 4, workers: 1")
SAID = "the GPU failed (CUDA error: unspecified launch failure); "
GOES_ON = f"{SAID}the trial goes on in a new process"
RESUMED = [*range(1, 7), *range(5, 11)]
"""The steps of a trial of ten that fails after the sixth, with a state saved after the fourth."""


def work(at: int, failures: int, *command: str) -> tuple[int, str, list[str]]:
    """Its status, its output and the lines of its errors. All its processes have one id, and inherit no child."""
    process = subprocess.Popen(
        [sys.executable, "-c", FAILING, str(at), str(failures), *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    output, errors = process.communicate(timeout=300)
    assert set(Path("starts").read_text().splitlines()) == {f"[{process.pid}]"}, errors
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors.splitlines()


def steps() -> list[int]:
    return [int(step) for step in Path("steps").read_text().split()]


@pytest.mark.slow
def test_a_tunings_trial_goes_on_in_a_new_process(tuning: Searching) -> None:
    tuning(ONE_MODEL, LOADED, ("trials: 3", "trials: 1"))
    status, output, errors = work(6, 1, "pipeline", "tune")
    assert (status, errors.count(GOES_ON)) == (0, 1)
    assert output.startswith("half a line")
    assert steps() == RESUMED
    result = read_tuning()
    assert result is not None
    (model,) = result.models
    assert ([trial.state for trial in model.trials], model.failed) == (["complete"], 0)


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_database")
def test_a_searchs_trial_goes_on_in_a_new_process(searching: Searching) -> None:
    searching(LOADED, ("trials: 3", "trials: 2"), ("log_every: 2", "log_every: 1"))
    status, _, errors = work(6, 1, "stages.search")
    assert (status, errors.count(GOES_ON)) == (0, 1)
    assert steps() == [*RESUMED, *range(1, 11)]
    result = read_search()
    assert result is not None
    assert ([trial.state for trial in result.trials], result.failed) == (["complete"] * 2, 0)
    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name("tiny")
    assert experiment is not None
    kinds = [run.data.tags["kind"] for run in mlflow.search_runs([experiment.experiment_id])]
    assert sorted(kinds) == ["search", "trial", "trial"]


@pytest.mark.slow
def test_a_trial_that_always_fails_ends_its_worker_and_waits_for_the_next_one(tuning: Searching) -> None:
    study = tuning(ONE_MODEL, ("trials: 3", "trials: 1"))
    status, _, errors = work(0, 99, "stages.tune")
    assert status == DeviceFailure.status
    assert errors[1::2] == [GOES_ON] * 3 + [f"error: {SAID}run the same command again to go on"]
    assert len(Path("starts").read_text().splitlines()) == 4
    worker = tune_worker(study)
    worker.run()
    (model,) = worker.save().models
    assert [trial.point for trial in model.trials] == [{"learning_rate": 0.01}]


def test_a_trial_may_fail_as_often_whoever_runs_it(tuning: Searching) -> None:
    """Two trials, of which each is started four times, and ends well at the last of them or not."""
    study = tuning(ONE_MODEL, ("trials: 3", "trials: 2"))
    starts: Counter[str] = Counter()

    def run(problem: Problem, point: Point, *_: object) -> Measured:
        _, cell = problem.trial(point)
        starts[cell.name] += 1
        if len(starts) == 2 or starts[cell.name] < DeviceFailure.tries:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return Measured("complete", 1.0, None, 0.0, describe("none", 1, "fp32"))

    for _ in range(6):
        with pytest.raises(StartAgain):
            tune_worker(study, run).run()
    with pytest.raises(DeviceFailure, match="run the same command again"):
        tune_worker(study, run).run()
    assert list(starts.values()) == [4, 4]
    with pytest.raises(StartAgain):
        tune_worker(study, run).run()


def test_a_job_leaves_it_to_its_worker_to_start_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    Path("work.py").write_text("print('error: the GPU failed'); raise SystemExit(75)")
    with pytest.raises(SystemExit, match="1"):
        Job((Stage("tune@0", "python work.py", ()),), requeues=1)()
    assert Path("logs/run/tune@0.log").read_text().count("the GPU failed") == 1
