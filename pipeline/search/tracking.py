"""Searches in MLflow: a run for each, and one for each trial nested under that; a view of ``results.json``.

A tuning is a search for each of its models.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pipeline.base import paths
from pipeline.results.curve import read_rows
from pipeline.results.search import (
    FILES,
    TUNE_FILES,
    SearchResult,
    TrialResult,
    Trials,
    TuneResult,
    read_search,
    read_tuning,
)
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

COUNTS = ("wanted", "infeasible", "failed")
COSTS = ("total_parameters", "non_embedding_parameters", "training_flops", "seconds")


@dataclass(frozen=True)
class Parent:
    """The run of a search: what tells it from others, its parameters and files; ``speed`` names tokens/s of trials."""

    kind: str
    name: str
    tags: dict[str, str]
    params: dict[str, str]
    files: tuple[Path, ...]
    trials: Trials
    speed: str = ""


def sync_searches(study_name: str) -> bool:
    """Bring the runs of search and tuning up to date with their files: whether they are. A failure costs a warning."""
    return all([_synced(study_name, paths.SEARCH, read_search()), _synced(study_name, paths.TUNE, read_tuning())])


def _synced(study_name: str, folder: Path, result: SearchResult | TuneResult | None) -> bool:
    if result is None or result.study != study_name:
        return True
    with only_warns(folder.name), FileLock(folder / "mlflow.lock"):
        mlflow = client()
        with lock():
            experiment = experiment_id(mlflow, result.study)
        for parent in _parents(result):
            _sync(mlflow, experiment, parent)
        return True
    return False


def _parents(result: SearchResult | TuneResult) -> list[Parent]:
    if isinstance(result, SearchResult):
        params = {key: str(getattr(result, key)) for key in ("setting", "throughput", "size")}
        params |= {"objectives": ", ".join(result.objectives)}
        return [Parent("search", "search", {}, params, FILES, result, f"{result.setting}_tokens_per_second")]
    params = {"tokens": str(result.tokens)}
    return [
        Parent("tune", f"tune {model.model}", {"model": model.model}, params, TUNE_FILES, model)
        for model in result.models
    ]


def _sync(mlflow: MlflowClient, experiment: str, parent: Parent) -> None:
    run, trials = _parent_run(mlflow, experiment, parent), parent.trials
    nested = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    runs = runs_of(mlflow, experiment, nested)
    for trial in trials.trials:
        same = [run for run in runs if run.data.tags["trial"] == str(trial.number)]
        child = only_run(mlflow, same) or _child(mlflow, experiment, run, trial)
        _sync_trial(mlflow, child, trial, parent)
    gone = is_local() and not mlflow.list_artifacts(run.info.run_id)  # a database moved without its artifacts
    if gone or run.data.metrics.get("finished") != len(trials.trials):
        for path in parent.files:
            mlflow.log_artifact(run.info.run_id, str(path))
    counts = {name: float(getattr(trials, name)) for name in COUNTS} | {"finished": float(len(trials.trials))}
    log_changed(mlflow, run, counts)
    if trials.finished:
        finish(mlflow, run)


def _parent_run(mlflow: MlflowClient, experiment: str, parent: Parent) -> Run:
    """The run of this search; those of other searches that params.yaml had are marked as superseded."""
    identity, tags = parent.trials.identity, {"kind": parent.kind} | parent.tags
    alike = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
    runs = runs_of(mlflow, experiment, alike)
    run = only_run(mlflow, [run for run in runs if run.data.tags.get("identity") == identity])
    others = [other for other in runs if other.data.tags.get("identity") != identity]
    if run is not None:
        mark_present(mlflow, run, others)
        return run
    run = create_run(mlflow, experiment, parent.name, tags | {"identity": identity})
    mark_present(mlflow, run, others)
    for key, value in parent.params.items():
        mlflow.log_param(run.info.run_id, key, value)
    return run


def _child(mlflow: MlflowClient, experiment: str, run: Run, trial: TrialResult) -> Run:
    from mlflow.entities import Param

    tags = {"kind": "trial", "trial": str(trial.number), "trial_cell": trial.cell, "state": trial.state}
    tags |= {"mlflow.parentRunId": run.info.run_id, "device": trial.environment.device}
    name = f"trial {trial.number}: {trial.cell}"
    child = create_run(mlflow, experiment, name, tags)
    mlflow.log_batch(child.info.run_id, params=[Param(key, str(value)) for key, value in trial.point.items()])
    return child


def _sync_trial(mlflow: MlflowClient, run: Run, trial: TrialResult, parent: Parent) -> None:
    """Metrics have the names that the cells' runs give them, so that both compare in one table."""
    if run.info.status != "FINISHED":
        metrics = {name: float(getattr(trial, name)) for name in COSTS}
        metrics |= {} if trial.tokens_per_second is None else {parent.speed: trial.tokens_per_second}
        record = checkpoint_record(trial.cell)
        if record is not None and record["fingerprint"] == trial.fingerprint:
            sync_curve(mlflow, run, read_rows(paths.checkpoint(trial.cell) / "curve.csv"))
        elif trial.loss is not None:
            metrics["validation_loss"] = trial.loss
        log_changed(mlflow, run, metrics)
        finish(mlflow, run)
    set_tags(mlflow, run, {"best": str(trial.number in parent.trials.best).lower()})


if __name__ == "__main__":
    follow(partial(sync_searches, sys.argv[1]))
