"""The search in MLflow: a run for it, and one for each trial nested under that; a view of ``results.json``."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from filelock import FileLock

from pipeline.base import paths
from pipeline.results.search import FILES, SearchResult, TrialResult, read_search
from pipeline.tracking import client, follow
from pipeline.tracking.runs import (
    create_run,
    experiment_id,
    finish,
    log_changed,
    mark_present,
    only_run,
    runs_of,
    set_tags,
)
from pipeline.tracking.store import is_local, lock
from pipeline.tracking.sync import checkpoint_record, only_warns, sync_curve

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOCK = paths.SEARCH / "mlflow.lock"
COUNTS = ("wanted", "infeasible", "failed")
COSTS = ("total_parameters", "non_embedding_parameters", "training_flops", "seconds")


def sync_search(study_name: str) -> bool:
    """Bring the search's runs up to date with its files: whether they are. A tracker that fails costs a warning."""
    result = read_search()
    if result is not None and result.study == study_name:
        with only_warns("search"), FileLock(LOCK):
            _sync(client(), result)
            return True
        return False
    return True


def _sync(mlflow: MlflowClient, result: SearchResult) -> None:
    with lock():
        experiment = experiment_id(mlflow, result.study)
    parent = _parent(mlflow, experiment, result)
    nested = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    runs = runs_of(mlflow, experiment, nested)
    for trial in result.trials:
        same = [run for run in runs if run.data.tags["trial"] == str(trial.number)]
        run = only_run(mlflow, same) or _child(mlflow, experiment, parent, trial)
        _sync_trial(mlflow, run, trial, result)
    gone = is_local() and not mlflow.list_artifacts(parent.info.run_id)  # a database moved without its artifacts
    if gone or parent.data.metrics.get("finished") != len(result.trials):
        for path in FILES:
            mlflow.log_artifact(parent.info.run_id, str(path))
    counts = {name: float(getattr(result, name)) for name in COUNTS} | {"finished": float(len(result.trials))}
    log_changed(mlflow, parent, counts)
    if len(result.trials) >= result.wanted:
        finish(mlflow, parent)


def _parent(mlflow: MlflowClient, experiment: str, result: SearchResult) -> Run:
    """The run of this search; those of other searches that params.yaml had are marked as superseded."""
    runs = runs_of(mlflow, experiment, "tags.kind = 'search'")
    run = only_run(mlflow, [run for run in runs if run.data.tags.get("identity") == result.identity])
    others = [other for other in runs if other.data.tags.get("identity") != result.identity]
    if run is not None:
        mark_present(mlflow, run, others)
        return run
    run = create_run(mlflow, experiment, "search", {"kind": "search", "identity": result.identity})
    mark_present(mlflow, run, others)
    mlflow.log_param(run.info.run_id, "objectives", ", ".join(result.objectives))
    for key in ("setting", "throughput", "size"):
        mlflow.log_param(run.info.run_id, key, getattr(result, key))
    return run


def _child(mlflow: MlflowClient, experiment: str, parent: Run, trial: TrialResult) -> Run:
    from mlflow.entities import Param

    tags = {"kind": "trial", "trial": str(trial.number), "trial_cell": trial.cell, "state": trial.state}
    tags |= {"mlflow.parentRunId": parent.info.run_id, "device": trial.environment.device}
    name = f"trial {trial.number}: {trial.cell}"
    run = create_run(mlflow, experiment, name, tags)
    mlflow.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in trial.point.items()])
    return run


def _sync_trial(mlflow: MlflowClient, run: Run, trial: TrialResult, result: SearchResult) -> None:
    """Metrics have the names that the cells' runs give them, so that both compare in one table."""
    if run.info.status != "FINISHED":
        metrics = {name: float(getattr(trial, name)) for name in COSTS}
        metrics |= {f"{result.setting}_tokens_per_second": trial.tokens_per_second or float("nan")}
        record = checkpoint_record(trial.cell)
        if record is not None and record["fingerprint"] == trial.fingerprint:
            sync_curve(mlflow, run, paths.checkpoint(trial.cell) / "curve.csv")
        elif trial.loss is not None:
            metrics["validation_loss"] = trial.loss
        log_changed(mlflow, run, metrics)
        finish(mlflow, run)
    set_tags(mlflow, run, {"best": str(trial.number in result.best).lower()})


if __name__ == "__main__":
    follow(partial(sync_search, sys.argv[1]))
