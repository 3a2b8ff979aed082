"""MLflow as a second sink: files are the record, and a run is brought up to date from them, any number of times.

One experiment a study, one run a cell and fingerprint. Nothing a tracker does can stop or slow a stage: training is
followed by a process of its own, and :func:`sync_cell` of a finished stage only warns when the server is away.
"""

from __future__ import annotations

import csv
import logging
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.files import read_json
from pipeline.base.redact import redacted
from pipeline.results.records import STAGES, AnyResult, EvaluateResult, PretrainResult, read_result

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MOST_RUNS = 50_000  # of a search's answer
BATCH = 1000  # metrics that MLflow takes in one request
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on runs, not on traces
SQLITE = "sqlite:///"
SQLALCHEMY_ASIDE = "(raised as a result of"  # before what went wrong
DVC_COPIES = (".dvc", "tmp", "exps")
LAST_SYNC_SECONDS = 60
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}  # else minutes a request
CURVES = (
    "train_loss",
    "validation_loss",
    "learning_rate",
    "matrix_learning_rate",
    "gradient_norm",
    "tokens_per_second",
)


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the SQLite database in the repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{_database()}"


def _database() -> Path:
    """The repository's, also from the copy of it that DVC's queue runs an experiment in and removes afterwards."""
    path = paths.MLFLOW.resolve()
    for copies in path.parents:
        if copies.parts[-3:] == DVC_COPIES:
            return Path(*copies.parts[:-3], *path.relative_to(copies).parts[1:])
    return path


def _beside_database(name: str) -> Path:
    """A path beside the SQLite database, the same for every study that writes it."""
    uri = tracking_uri()
    database = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else _database()
    return database.resolve().parent / name


def lock() -> FileLock:
    """Held while experiments and runs are looked up and made, so that processes don't make them twice."""
    return FileLock(_beside_database("mlflow.lock"))


def client() -> MlflowClient:
    """A client for :func:`tracking_uri`. A lock keeps processes from creating the database at the same time."""
    for key, value in {"MLFLOW_DISABLE_TELEMETRY": "true", **PATIENCE}.items():
        os.environ.setdefault(key, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs tracebacks of what is warned of
    from mlflow import MlflowClient

    with lock():
        return MlflowClient(tracking_uri())


def sync_cell(study_name: str, cell: str) -> bool:
    """Bring a cell's run up to date with its files: whether it is. A tracker that fails costs a warning, no more."""
    with only_warns(cell):
        _sync_cell(study_name, cell)
        return True
    return False


def sync_report(study_name: str, folder: Path = paths.REPORT) -> bool:
    """The report's own run, and flags on the cells' runs; a tracker that fails costs a warning, no more.

    The run holds page and figures as artifacts, the speed-ups as metrics and the headline as its description. A cell's
    tag ``pareto.decode_heavy`` says whether it is on the front of loss and tokens/s in that setting; ``_memory`` and
    ``_all`` after the setting stand for the fronts of loss and bytes a sample, and of all three.
    """
    if not (folder / "report.json").exists():
        return True
    with only_warns("report"):
        report = read_json(folder / "report.json")
        mlflow = client()
        with lock():
            experiment = experiment_id(mlflow, study_name)
            runs = mlflow.search_runs([experiment], "tags.kind = 'report'")
            run = runs[0] if runs else mlflow.create_run(experiment, run_name="report", tags={"kind": "report"})
        mlflow.log_artifacts(run.info.run_id, str(folder))
        _set_tags(mlflow, run, {"mlflow.note.content": report["headline"]})
        log_changed(mlflow, run, _flat(report["speedup"], "speedup."))
        finish(mlflow, run)
        _flag_fronts(mlflow, experiment, report["pareto"])
        return True
    return False


@contextmanager
def only_warns(what: str) -> Iterator[None]:
    """Whatever goes wrong between here and the tracker costs a warning, unless it is a user's mistake."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        _warn_behind(what, _reason(error))


def _flag_fronts(mlflow: MlflowClient, experiment: str, fronts: dict[str, list[str]]) -> None:
    """Flag the run of each cell's present weights; take earlier reports' flags off every other run."""
    for run in mlflow.search_runs([experiment], "tags.kind = 'cell'", max_results=MOST_RUNS):
        cell = run.data.tags["cell"]
        record = checkpoint_record(cell)
        current = record is not None and record["fingerprint"] == run.data.tags["fingerprint"]
        flags = {f"pareto.{name}": str(cell in cells).lower() for name, cells in fronts.items()} if current else {}
        for key in run.data.tags:
            if key.startswith("pareto.") and key not in flags:
                mlflow.delete_tag(run.info.run_id, key)
        _set_tags(mlflow, run, flags)


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if not line.startswith(SQLALCHEMY_ASIDE)]
    return redacted(lines[0]) if lines else type(error).__name__


def _warn_behind(what: str, reason: str) -> None:
    print(
        f"warning: MLflow is behind for {what}: {reason}\n"
        "warning: the results are on disk; `python -m pipeline tracking sync` brings MLflow up to date",
        file=sys.stderr,
    )


def _sync_cell(study_name: str, cell: str) -> None:
    record = checkpoint_record(cell)
    if record is None:
        return
    mlflow = client()
    run = _find_or_create(mlflow, study_name, record)
    sync_curve(mlflow, run, paths.checkpoint(cell) / "curve.csv")
    metrics, tags = _result_metrics(cell, record["fingerprint"])
    log_changed(mlflow, run, metrics)
    _set_tags(mlflow, run, tags)
    if "total_parameters" in metrics and run.info.status != "FINISHED":
        finish(mlflow, run)


def checkpoint_record(cell: str) -> dict[str, Any] | None:
    """The cell's ``config.json``: identity, fingerprint, model and training keys; ``None`` before training began."""
    path = paths.checkpoint(cell) / "config.json"
    return read_json(path) if path.exists() else None


@contextmanager
def following(study_name: str, cell: str, module: str = "pipeline.tracking") -> Iterator[None]:
    """Keep the cell's run up to date while the block runs, from a process of its own that a kill of this one ends.

    ``module`` is what that process runs.
    """
    command = [sys.executable, "-m", module, study_name, cell]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(LAST_SYNC_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            _warn_behind(cell, f"no answer in {LAST_SYNC_SECONDS} seconds")


def catch_up(study_name: str, cell: str) -> None:
    """Bring a cell's run, or the ``report``'s, up to date once; a tracker that hangs is left after a minute."""
    with following(study_name, cell):
        pass


def follow(sync: Callable[[], object], seconds: float = 10.0) -> None:
    """Call ``sync`` while standard input is open, then once more: the other end of the pipe is the training process."""
    os.nice(10)
    watch = selectors.DefaultSelector()
    watch.register(sys.stdin, selectors.EVENT_READ)
    while not watch.select(timeout=seconds):
        sync()
    sync()


def serve_ui(port: int) -> None:
    """Replace this process by MLflow's UI on 127.0.0.1, over the database that the stages write."""
    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        raise UserError(f"MLFLOW_TRACKING_URI: {redacted(uri)!r} is a server already; open it in a browser")
    client().search_experiments(max_results=1)
    print(f"MLflow UI: http://127.0.0.1:{port}  (Ctrl-C stops it)", flush=True)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    arguments = ["-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *arguments])


def _find_or_create(mlflow: MlflowClient, study_name: str, record: dict[str, Any]) -> Run:
    """The run of this cell and fingerprint. A lock keeps processes that start together from creating it twice."""
    cell, fingerprint = record["cell"], record["fingerprint"]
    with lock():
        experiment = experiment_id(mlflow, study_name)
        runs = mlflow.search_runs([experiment], f"tags.cell = '{cell['name']}'")
        run = only_run(mlflow, [run for run in runs if run.data.tags.get("fingerprint") == fingerprint])
        if run is None:
            for old in runs:
                mlflow.set_tag(old.info.run_id, "superseded", "true")
            tags = {key: str(value) for key, value in cell.items() if value is not None and key != "name"}
            tags |= {"cell": cell["name"], "kind": "cell"}
            run = mlflow.create_run(experiment, run_name=cell["name"], tags=tags)
        return _described(mlflow, run, record)


def only_run(mlflow: MlflowClient, same: list[Run]) -> Run | None:
    """The oldest of runs that stand for the same; the others, made when a server that hung woke up, are deleted."""
    by_age = sorted(same, key=lambda run: (run.info.start_time, run.info.run_id))
    for run in by_age[1:]:
        mlflow.delete_run(run.info.run_id)
    return by_age[0] if by_age else None


def experiment_id(mlflow: MlflowClient, study_name: str) -> str:
    """The study's experiment, made where it is absent."""
    experiment = mlflow.get_experiment_by_name(study_name)
    if experiment is not None:
        return str(experiment.experiment_id)
    local = tracking_uri().startswith(SQLITE)
    location = _beside_database(f"mlruns/{study_name}").as_uri() if local else None
    return str(mlflow.create_experiment(study_name, artifact_location=location, tags=MODEL_TRAINING))


def _described(mlflow: MlflowClient, run: Run, record: dict[str, Any]) -> Run:
    """The run with its parameters and ``config.yaml``, also where the process that created it got no further."""
    from mlflow.entities import Param

    cell = record["cell"]
    params = _flat({key: value for key, value in record.items() if key != "fingerprint"})
    identity = ("family", "size", "block_length", "variant", "seed")
    params |= {key: cell[key] for key in identity if cell[key] is not None}
    known = run.data.params
    missing = [Param(k, str(v)) for k, v in params.items() if not k.startswith("cell.") and k not in known]
    if not missing:
        return run
    mlflow.log_dict(run.info.run_id, record, "config.yaml")
    for start in range(0, len(missing), 100):
        mlflow.log_batch(run.info.run_id, params=missing[start : start + 100])
    return mlflow.get_run(run.info.run_id)


def sync_curve(mlflow: MlflowClient, run: Run, path: Path) -> None:
    """Log the rows of the curve file that the run does not hold yet, with the times of the file."""
    from mlflow.entities import Metric

    if not path.exists():
        return
    done = dict.fromkeys(CURVES, -1)
    for key in CURVES:
        if key in run.data.metrics:
            done[key] = max(metric.step for metric in mlflow.get_metric_history(run.info.run_id, key))
    with path.open(newline="", encoding="utf-8") as opened:
        metrics = [
            Metric(key, float(row[key]), int(row["time"]), int(row["step"]))
            for row in csv.DictReader(opened)
            for key in CURVES
            if row.get(key) and int(row["step"]) > done[key]
        ]
    _log(mlflow, run, metrics)


def _set_tags(mlflow: MlflowClient, run: Run, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        if run.data.tags.get(key) != value:
            mlflow.set_tag(run.info.run_id, key, value)


def log_changed(mlflow: MlflowClient, run: Run, metrics: dict[str, float]) -> None:
    """Log the metrics that the run does not hold with these values."""
    from mlflow.entities import Metric

    changed = {key: value for key, value in metrics.items() if run.data.metrics.get(key) != value}
    logged = [Metric(key, value, _later(_last_change(mlflow, run, key)), 0) for key, value in changed.items()]
    _log(mlflow, run, logged)


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


def _log(mlflow: MlflowClient, run: Run, metrics: list[Any]) -> None:
    finite = [metric for metric in metrics if abs(metric.value) < float("inf")]
    for start in range(0, len(finite), BATCH):
        mlflow.log_batch(run.info.run_id, metrics=finite[start : start + BATCH])


def _result_metrics(cell: str, fingerprint: str) -> tuple[dict[str, float], dict[str, str]]:
    """Flat metrics and tags of the result files that were made from these weights; the curve holds the rest."""
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    for stage, kind in STAGES.items():
        path = paths.result(stage, cell)
        if not path.exists():
            continue
        result = read_result(path, kind, stage)
        if result.cell.fingerprint != fingerprint:
            continue
        metrics |= {key: value for key, value in result_metrics(result).items() if key not in CURVES}
        tags |= {f"{stage}.device": result.environment.device, f"{stage}.revision": result.environment.revision}
        if isinstance(result, PretrainResult):
            tags["diverged"] = str(result.diverged).lower()
    return metrics, tags


def result_metrics(result: AnyResult) -> dict[str, float]:
    """A record's numbers under flat names: ``loss``, ``cloze_acc``, ``prefill_heavy_tokens_per_second``."""
    values = asdict(result)
    for key in ("cell", "environment", "tasks", "settings"):
        values.pop(key, None)
    metrics = {key: float(value) for key, value in values.items() if _is_number(value)}
    if isinstance(result, PretrainResult):
        metrics |= {f"parameters_{group}": float(count) for group, count in result.parameters.items()}
        metrics["pretrain_seconds"] = metrics.pop("seconds")
        metrics["training_tokens_per_second"] = metrics.pop("tokens_per_second")
    elif isinstance(result, EvaluateResult):
        metrics |= {f"{score.task}_{score.metric}": score.value for score in result.tasks}
        metrics["evaluate_seconds"] = metrics.pop("seconds")
    else:
        metrics = {}
        for name, setting in result.settings.items():
            metrics |= {f"{name}_{key}": float(value) for key, value in asdict(setting).items() if _is_number(value)}
    return metrics


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
