"""Several workers, dying workers, and what MLflow shows of it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial

from pipeline import tracking
from pipeline.base.paths import TOKENS
from pipeline.data import Manifest
from pipeline.results.search import SearchResult
from pipeline.search.allocation import Allocation, search_worker
from pipeline.search.ledger import Ledger, claim
from pipeline.search.tracking import sync_searches
from pipeline.search.tuning import tune_worker
from pipeline.study import Study
from pipeline.study.search_space import known_points
from pipeline.training.curve import read_rows
from tests.search import workers
from tests.search.conftest import Searching


def found(study: Study) -> SearchResult:
    return search_worker(study).save()


def assert_distinct(result: SearchResult, wanted: int) -> None:
    """That many trials finished, and each of a point of its own."""
    assert len(result.trials) == wanted
    assert set(Counter(trial.cell for trial in result.trials).values()) == {1}


@pytest.mark.parametrize("storage", ["null", "search/journal"])
def test_workers_that_ask_at_the_same_moment_take_exactly_as_many_as_wanted(searching: Searching, storage: str) -> None:
    study = searching(("trials: 3", f"trials: 6\n  storage: {storage}"))

    def work(_: int) -> int:
        ledger, run = Ledger(Allocation(study, Manifest.read(TOKENS))), 0
        while (claimed := claim([ledger])) is not None:
            time.sleep(0.05)
            ledger.finish(claimed[1], {}, {"state": "complete", "loss": 1.0, "tokens_per_second": 1.0})
            run += 1
        return run

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 6


@pytest.mark.parametrize("last", range(4, 9))
def test_trials_that_end_while_another_worker_counts_are_not_run_again(
    searching: Searching, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    study = searching(("trials: 3", "trials: 2"))
    one, other = (Ledger(Allocation(study, Manifest.read(TOKENS))) for _ in range(2))
    running = {look: one.claim() for look in (2, last)}
    looks = count(1)

    def trials(ledger: Ledger) -> list[FrozenTrial]:
        seen = ledger.optuna.get_trials()
        ends = running.get(next(looks)) if ledger is other else None
        if ends is not None:
            one.finish(ends, {}, {"state": "complete", "loss": 1.0, "tokens_per_second": 1.0})
        return seen

    monkeypatch.setattr(Ledger, "trials", trials)
    assert [other.claim() for _ in range(3)] == [None] * 3


@pytest.mark.slow
def test_two_workers_share_a_search(searching: Searching) -> None:
    study = searching(("trials: 3", "trials: 4"))
    both = [workers.start(name) for name in ("one", "other")]
    assert [workers.end(process) for process in both] == [0, 0]
    assert all("finished" in Path(name).read_text() for name in ("one", "other")), "each of them ran a trial"
    assert_distinct(found(study), 4)


@pytest.mark.slow
def test_a_killed_workers_trial_is_retried_from_its_last_state(searching: Searching) -> None:
    study = searching(("tokens: 2560", "tokens: 25600"), ("trials: 3", "trials: 1"), ("log_every: 2", "log_every: 1"))
    (known,) = known_points(study)
    process = workers.start()
    folder = workers.wait_for_state(study, known)
    workers.kill(process)
    killed = time.time() * 1000
    assert workers.end(workers.start()) == 0
    result = found(study)
    (retried,) = result.trials
    assert retried.point == known
    assert retried.number > 0, "the first trial is the one whose worker was killed"
    times = [int(row["time"]) for row in read_rows(folder / "curve.csv")]
    assert times[0] < killed < times[-1], "one curve, begun by one worker and ended by the other"
    assert len(times) == 100


def test_ctrl_c_leaves_the_trial_to_the_next_worker_at_once(searching: Searching) -> None:
    study = searching(("tokens: 2560", "tokens: 51200"), ("trials: 3", "trials: 1"))
    (known,) = known_points(study)
    process = workers.start()
    workers.wait_for_state(study, known)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert workers.end(process) == 130
    assert "stopped at step" in Path("worker").read_text().splitlines()[-1]
    started = time.monotonic()
    trial = Ledger(Allocation(study, Manifest.read(TOKENS))).claim()
    assert trial is not None
    assert trial.params == known
    assert time.monotonic() - started < workers.GRACE


@pytest.mark.slow
def test_twelve_trials_through_two_kills(searching: Searching) -> None:
    study = searching(("trials: 3", "trials: 12"), ("tokens: 2560", "tokens: 10240"))
    for seconds in (4, 6):
        process = workers.start()
        time.sleep(seconds)
        workers.kill(process)
    assert workers.end(workers.start()) == 0
    assert_distinct(found(study), 12)


@pytest.mark.parametrize("storage", ["null", "tune/journal"])
@pytest.mark.slow
def test_a_tuning_through_two_kills_finishes_as_many_trials_of_each_model(tuning: Searching, storage: str) -> None:
    space = ("0.025]}", "0.025], batch_size: [2, 4, 8]}")
    study = tuning(("trials: 3", "trials: 8"), ("rounds: 1", "rounds: 2"), space, ("tokens: 2560", "tokens: 10240"),
                   ("storage: tune/journal", f"storage: {storage}"))  # fmt: skip
    for seconds in (4, 6):
        process = workers.start(make=tune_worker)
        time.sleep(seconds)
        workers.kill(process)
    both = [workers.start(name, tune_worker) for name in ("one", "other")]
    assert [workers.end(process) for process in both] == [0, 0]
    result = tune_worker(study).save()
    assert [model.model for model in result.models] == ["vanilla-s", "block-s-4-base"]
    for model in result.models:
        assert len(model.trials) == 8
        assert set(Counter(trial.cell for trial in model.trials).values()) == {1}
        assert model.failed == 0


@pytest.mark.usefixtures("mlflow_database")
def test_mlflow_has_a_run_for_each_tuned_model(tuning: Searching) -> None:
    study = tuning(("trials: 3", "trials: 1"))
    worker = tune_worker(study)
    worker.run()
    result = worker.save()
    for _ in range(2):
        assert sync_searches(study.name)
    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = mlflow.search_runs([experiment.experiment_id])
    parents = {run.info.run_id: run.data.tags["model"] for run in runs if run.data.tags["kind"] == "tune"}
    assert set(parents.values()) == {"vanilla-s", "block-s-4-base"}
    of_trials = [run for run in runs if run.data.tags["kind"] == "trial"]
    trials = {parents[run.data.tags["mlflow.parentRunId"]]: run for run in of_trials}
    assert len(runs) == 4
    for model in result.models:
        (trial,) = model.trials
        run = trials[model.model]
        assert run.data.params["learning_rate"] == str(trial.point["learning_rate"])
        assert run.data.metrics["validation_loss"] == pytest.approx(trial.loss, rel=1e-4)
    for run_id in parents:
        kept = {entry.path for entry in mlflow.list_artifacts(run_id)}
        assert kept == {"results.json", "trials.csv", "recipes.yaml"}


@pytest.mark.usefixtures("mlflow_database")
def test_mlflow_nests_the_trials_under_one_run_however_often_it_is_synced(searching: Searching) -> None:
    study = searching(("trials: 3", "trials: 2"))
    worker = search_worker(study)
    worker.run()
    result = worker.save()
    for _ in range(2):
        sync_searches(study.name)
    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = mlflow.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["kind"] == "search"]
    trials = {run.data.tags["trial_cell"]: run for run in runs if run is not parent}
    assert set(trials) == {trial.cell for trial in result.trials}
    assert len(runs) == 3
    for trial in result.trials:
        run = trials[trial.cell]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == "FINISHED"
        assert run.data.params["block_length"] == str(trial.point["block_length"])
        assert run.data.metrics["short_tokens_per_second"] == trial.tokens_per_second
        assert run.data.metrics["validation_loss"] == pytest.approx(trial.loss, rel=1e-4)
        assert run.data.tags["best"] == str(trial.number in result.best).lower()
    kept = {entry.path for entry in mlflow.list_artifacts(parent.info.run_id)}
    assert kept == {"results.json", "trials.csv", "variants.yaml"}
