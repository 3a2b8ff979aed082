"""Runs in MLflow: found or made, one for the same thing; described, and given numbers that it does not hold yet.

An experiment of DVC has runs of its own, with the tag ``dvc_experiment``: the study's keep their numbers and marks.
Those of an experiment that is applied to the study become the study's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pipeline.base.dotted import flat
from pipeline.tracking.store import artifact_location, dvc_experiment, is_local, lock

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MOST_RUNS = 50_000  # of a search's answer
BATCH = 1000  # metrics that MLflow takes in one request
MODEL = ("family", "size", "block_length", "variant", "budget")  # whose runs differ in their seed alone
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on runs, not on traces


def experiment_id(mlflow: MlflowClient, study_name: str) -> str:
    """The study's experiment, made where it is absent."""
    experiment = mlflow.get_experiment_by_name(study_name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = artifact_location(study_name) if is_local() else None
    return str(mlflow.create_experiment(study_name, artifact_location=location, tags=MODEL_TRAINING))


def runs_of(mlflow: MlflowClient, experiment: str, condition: str) -> list[Run]:
    """The study's runs that fulfil an MLflow condition, or the DVC experiment's, where this is a stage of one."""
    runs = mlflow.search_runs([experiment], condition, max_results=MOST_RUNS)
    return [run for run in runs if run.data.tags.get("dvc_experiment") == dvc_experiment()]


def create_run(mlflow: MlflowClient, experiment: str, name: str, tags: dict[str, str]) -> Run:
    """A new run, marked as a DVC experiment's where this is a stage of one."""
    belongs = dvc_experiment()
    return mlflow.create_run(experiment, run_name=name, tags=tags | ({"dvc_experiment": belongs} if belongs else {}))


def cell_run(mlflow: MlflowClient, study_name: str, record: dict[str, Any]) -> Run:
    """The run of a cell and fingerprint. A lock keeps processes that start together from creating it twice."""
    cell, fingerprint = record["cell"], record["fingerprint"]
    with lock():
        experiment = experiment_id(mlflow, study_name)
        runs = runs_of(mlflow, experiment, f"tags.cell = '{cell['name']}'")
        run = only_run(mlflow, [run for run in runs if run.data.tags.get("fingerprint") == fingerprint])
        run = run or _of_an_applied_experiment(mlflow, experiment, cell["name"], fingerprint)
        if run is None:
            tags = {key: str(value) for key, value in cell.items() if value is not None and key != "name"}
            run = create_run(mlflow, experiment, cell["name"], tags | {"cell": cell["name"], "kind": "cell"})
        mark_present(mlflow, run, [old for old in runs if old.data.tags.get("fingerprint") != fingerprint])
        return _described(mlflow, run, record)


def _of_an_applied_experiment(mlflow: MlflowClient, experiment: str, cell: str, fingerprint: str) -> Run | None:
    """The run that a DVC experiment made for weights that the study now has; from here on the study's own."""
    if dvc_experiment():
        return None
    same = f"tags.cell = '{cell}' and tags.fingerprint = '{fingerprint}'"
    for run in mlflow.search_runs([experiment], same, order_by=["attributes.start_time ASC"], max_results=1):
        mlflow.delete_tag(run.info.run_id, "dvc_experiment")
        return run
    return None


def only_run(mlflow: MlflowClient, same: list[Run]) -> Run | None:
    """The oldest of runs that stand for the same; the others, made when a server that hung woke up, are deleted."""
    by_age = sorted(same, key=lambda run: (run.info.start_time, run.info.run_id))
    for run in by_age[1:]:
        mlflow.delete_run(run.info.run_id)
    return by_age[0] if by_age else None


def mark_present(mlflow: MlflowClient, run: Run, others: list[Run]) -> None:
    """Mark the other runs as superseded and this one not, which may have been while params.yaml said otherwise."""
    if "superseded" in run.data.tags:
        mlflow.delete_tag(run.info.run_id, "superseded")
    for other in others:
        set_tags(mlflow, other, {"superseded": "true"})


def _described(mlflow: MlflowClient, run: Run, record: dict[str, Any]) -> Run:
    """The run with its parameters and ``config.yaml``, also where the process that created it got no further."""
    from mlflow.entities import Param

    cell = record["cell"]
    params = flat({key: value for key, value in record.items() if key not in ("fingerprint", "code")})
    identity = {key: cell[key] for key in (*MODEL, "seed") if cell.get(key) is not None}
    params |= identity | {"model": "-".join(str(identity[key]) for key in MODEL if key in identity)}
    known = run.data.params
    missing = [Param(k, str(v)) for k, v in params.items() if not k.startswith("cell.") and k not in known]
    # A database that was moved without its artifacts gets them again.
    if missing or (is_local() and not mlflow.list_artifacts(run.info.run_id)):
        mlflow.log_dict(run.info.run_id, record, "config.yaml")
    for start in range(0, len(missing), 100):
        mlflow.log_batch(run.info.run_id, params=missing[start : start + 100])
    return mlflow.get_run(run.info.run_id) if missing else run


def set_tags(mlflow: MlflowClient, run: Run, tags: dict[str, str]) -> None:
    """Set the tags that the run does not hold with these values."""
    for key, value in tags.items():
        if run.data.tags.get(key) != value:
            mlflow.set_tag(run.info.run_id, key, value)


def log_changed(mlflow: MlflowClient, run: Run, metrics: dict[str, float]) -> None:
    """Log the metrics that the run does not hold with these values."""
    from mlflow.entities import Metric

    changed = {key: value for key, value in metrics.items() if run.data.metrics.get(key) != value}
    logged = [Metric(key, value, _later(_last_change(mlflow, run, key)), 0) for key, value in changed.items()]
    log(mlflow, run, logged)


def log_steps(mlflow: MlflowClient, run: Run, metrics: dict[str, dict[int, float]]) -> None:
    """Log the values of metrics by step that the run does not hold, or holds otherwise."""
    from mlflow.entities import Metric

    logged = []
    for key, values in metrics.items():
        known = mlflow.get_metric_history(run.info.run_id, key) if key in run.data.metrics else []
        now = _later(max((metric.timestamp for metric in known), default=0))
        held = {metric.step: metric.value for metric in sorted(known, key=lambda metric: metric.timestamp)}
        logged += [Metric(key, value, now, step) for step, value in values.items() if held.get(step) != value]
    log(mlflow, run, logged)


def log(mlflow: MlflowClient, run: Run, metrics: list[Any]) -> None:
    """Log MLflow's metrics, but for those that are not finite: they would wreck its charts."""
    finite = [metric for metric in metrics if abs(metric.value) < float("inf")]
    for start in range(0, len(finite), BATCH):
        mlflow.log_batch(run.info.run_id, metrics=finite[start : start + BATCH])


def finish(mlflow: MlflowClient, run: Run) -> None:
    """Mark the run as finished, after its start even where the clock was set back meanwhile."""
    mlflow.set_terminated(run.info.run_id, end_time=_later(run.info.start_time))


def _last_change(mlflow: MlflowClient, run: Run, key: str) -> int:
    """When a metric was last logged, in ms since 1970; 0 where it never was."""
    history = mlflow.get_metric_history(run.info.run_id, key) if key in run.data.metrics else []
    return max((metric.timestamp for metric in history), default=0)


def _later(before: int) -> int:
    """Now, in ms since 1970, but after ``before``: a clock may be set back, and MLflow goes by what is latest."""
    return max(time.time_ns() // 1_000_000, before + 1)
