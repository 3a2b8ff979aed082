"""A cell's run and the report's, brought up to date from their files any number of times."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base import paths
from pipeline.base.dotted import flat
from pipeline.base.errors import UserError
from pipeline.base.files import read_json
from pipeline.results.along import scores_along
from pipeline.results.curve import read_rows
from pipeline.results.metrics import in_mlflow, result_metrics
from pipeline.results.records import STAGES, EvaluateResult, PretrainResult, Sample, read_result
from pipeline.tracking.runs import (
    cell_run,
    create_run,
    experiment_id,
    finish,
    log,
    log_changed,
    log_steps,
    only_run,
    runs_of,
    set_tags,
)
from pipeline.tracking.store import client, dvc_experiment, lock, reason
from pipeline.tracking.views import write_views

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CURVES = (
    "train_loss",
    "validation_loss",
    "learning_rate",
    "matrix_learning_rate",
    "gradient_norm",
    "tokens_per_second",
)
ALONG = ("tokens", "training_flops")
"""What curves can be drawn along, beside steps."""


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
    ``_all`` after the setting stand for the fronts of loss and bytes per sample, and of all three.
    """
    if not (folder / "report.json").exists():
        return True
    with only_warns("report"):
        report = read_json(folder / "report.json")
        mlflow = client()
        with lock():
            experiment = experiment_id(mlflow, study_name)
            run = only_run(mlflow, runs_of(mlflow, experiment, "tags.kind = 'report'"))
            run = run or create_run(mlflow, experiment, "report", {"kind": "report"})
        mlflow.log_artifacts(run.info.run_id, str(folder))
        set_tags(mlflow, run, {"mlflow.note.content": report["headline"]})
        log_changed(mlflow, run, flat(report["speedup"], "speedup."))
        finish(mlflow, run)
        cells = runs_of(mlflow, experiment, "tags.kind = 'cell'")
        _flag_fronts(mlflow, cells, report["pareto"])
        _colour(mlflow, cells, report.get("colours", {}))
        if dvc_experiment() is None:  # the views are the study's
            seeds = {run.data.tags["seed"] for run in cells}
            write_views(mlflow, experiment, {key for run in cells for key in run.data.metrics}, len(seeds) > 1)
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
        warn_behind(what, reason(error))


def warn_behind(what: str, why: str) -> None:
    """Say that MLflow lacks something, and how it gets it."""
    print(
        f"warning: MLflow is behind for {what}: {why}\n"
        "warning: the results are on disk; `python -m pipeline tracking sync` brings MLflow up to date",
        file=sys.stderr,
    )


def checkpoint_record(cell: str) -> dict[str, Any] | None:
    """The cell's ``config.json``: identity, fingerprint, model and training keys; ``None`` before training began."""
    path = paths.checkpoint(cell) / "config.json"
    return read_json(path) if path.exists() else None


def sync_curve(mlflow: MlflowClient, run: Run, rows: list[dict[str, Any]]) -> None:
    """Log the rows of a curve that the run does not hold yet, with their times."""
    from mlflow.entities import Metric

    keys = (*CURVES, *ALONG)
    done = dict.fromkeys(keys, -1)
    for key in keys:
        if key in run.data.metrics:
            done[key] = max(metric.step for metric in mlflow.get_metric_history(run.info.run_id, key))
    metrics = [
        Metric(key, float(row[key]), int(row["time"]), int(row["step"]))
        for row in rows
        for key in keys
        if row.get(key) and int(row["step"]) > done[key]
    ]
    log(mlflow, run, metrics)


def _sync_cell(study_name: str, cell: str) -> None:
    record = checkpoint_record(cell)
    if record is None:
        return
    mlflow = client()
    run = cell_run(mlflow, study_name, record)
    metrics, tags, samples = _results(cell, record["fingerprint"])
    rows = _with_flops(read_rows(paths.checkpoint(cell) / "curve.csv"), metrics)
    sync_curve(mlflow, run, rows)
    of_curve = ALONG if rows and "tokens" in rows[-1] else ()
    log_changed(mlflow, run, {key: value for key, value in metrics.items() if key not in of_curve})
    set_tags(mlflow, run, tags)
    _log_samples(mlflow, run, samples)
    log_steps(mlflow, run, _along(cell, record["fingerprint"]))
    if "total_parameters" in metrics and run.info.status != "FINISHED":
        finish(mlflow, run)


def _along(cell: str, fingerprint: str) -> dict[str, dict[int, float]]:
    """The scores along training, by metric and tokens, to the final weights'; none where the study asks for none."""
    pretrained, evaluated = paths.result("pretrain", cell), paths.result("evaluate", cell)
    if not pretrained.exists() or not evaluated.exists():
        return {}
    trained = read_result(pretrained, PretrainResult, "pretrain")
    record = read_result(evaluated, EvaluateResult, "evaluate")
    if record.cell.fingerprint != fingerprint:
        return {}
    metrics: dict[str, dict[int, float]] = {}
    for tokens, values in scores_along(trained, record):
        for key, value in values.items():
            metrics.setdefault(f"along/{in_mlflow(key)}", {})[tokens] = value
    return metrics


def _with_flops(rows: list[dict[str, str]], metrics: dict[str, float]) -> list[dict[str, Any]]:
    """The curve with the training FLOPs of each row, once the whole training's are known."""
    flops, tokens = metrics.get("training_flops"), metrics.get("tokens")
    if not flops or not tokens:
        return list(rows)
    return [
        row | {"training_flops": flops * (float(row["tokens"]) / tokens)} if row.get("tokens") else row for row in rows
    ]


def _colour(mlflow: MlflowClient, runs: list[Run], colours: dict[str, str]) -> None:
    """Give the runs the colours that the report's figures give their cells."""
    for run in runs:
        if run.data.tags["cell"] in colours:
            set_tags(mlflow, run, {"mlflow.runColor": colours[run.data.tags["cell"]]})


def _flag_fronts(mlflow: MlflowClient, runs: list[Run], fronts: dict[str, list[str]]) -> None:
    """Flag the run of each cell's present weights; take earlier reports' flags off every other run."""
    for run in runs:
        cell = run.data.tags["cell"]
        record = checkpoint_record(cell)
        current = record is not None and record["fingerprint"] == run.data.tags["fingerprint"]
        compared = current and "budget" not in run.data.tags
        flags = {f"pareto.{name}": str(cell in cells).lower() for name, cells in fronts.items()} if compared else {}
        for key in run.data.tags:
            if key.startswith("pareto.") and key not in flags:
                mlflow.delete_tag(run.info.run_id, key)
        set_tags(mlflow, run, flags)


def _log_samples(mlflow: MlflowClient, run: Run, samples: list[Sample]) -> None:
    """Keep the generated text as an artifact; a run that has the same text is left as it is."""
    text = "\n\n".join(f"## {sample.prompt}\n\n{sample.continuation}" for sample in samples)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    if samples and run.data.tags.get("samples") != digest:
        mlflow.log_text(run.info.run_id, text, "samples.md")
        set_tags(mlflow, run, {"samples": digest})


def _results(cell: str, fingerprint: str) -> tuple[dict[str, float], dict[str, str], list[Sample]]:
    """Flat metrics, tags and samples of the results that were made from these weights; the curve holds the rest."""
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {"checkpoint": str(paths.checkpoint(cell))}
    samples: list[Sample] = []
    for stage, kind in STAGES.items():
        path = paths.result(stage, cell)
        if not path.exists():
            continue
        result = read_result(path, kind, stage)
        if result.cell.fingerprint != fingerprint:
            continue
        diverged = tags.get("diverged") == "true"  # as the pretraining's record says, which comes first
        metrics |= {key: value for key, value in result_metrics(result, diverged).items() if key not in CURVES}
        tags |= {f"{stage}.hardware": result.environment.hardware, f"{stage}.revision": result.environment.revision}
        if isinstance(result, PretrainResult):
            tags["diverged"] = str(result.diverged).lower()
        if isinstance(result, EvaluateResult):
            samples = result.samples
    return metrics, tags, samples
