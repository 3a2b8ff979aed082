"""What `python -m pipeline compare` takes: folders, revisions of this repository, MLflow experiments."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from pipeline.analysis.rows.load import read_study
from pipeline.analysis.statistics.compare import BYTES, QUALITY, RATE, Entry, Side, side_of
from pipeline.base.errors import UserError
from pipeline.results.metrics import in_mlflow, setting_metric
from pipeline.tracking.store import client, is_kept, reason, tracking_uri

WHERE = "neither a folder with a params.yaml, nor a git revision of this repository, nor an MLflow experiment at"
MOST_RUNS = 1000


def read_sides(sources: list[str]) -> list[Side]:
    """The studies that ``sources`` name; a folder is called by its name alone where no other source is called so.

    Raises :class:`UserError` where one names none, or a study without results.
    """
    names = [Path(source).resolve().name if Path(source).is_dir() else source for source in sources]
    labels = [name if names.count(name) == 1 else source for name, source in zip(names, sources, strict=True)]
    return [_side(source, label) for source, label in zip(sources, labels, strict=True)]


def _side(source: str, label: str) -> Side:
    if Path(source).is_dir():
        return _of_folder(Path(source), label)
    if _is_revision(source):
        return _of_revision(source)
    side = _of_experiment(source)
    if side is None:
        raise UserError(f"{source}: {WHERE} {tracking_uri()}")
    return side


def _of_folder(folder: Path, label: str) -> Side:
    study, rows, missing = read_study(folder)
    return side_of(label, study, rows, missing)


def _is_revision(name: str) -> bool:
    """Of the repository that the process is in."""
    command = ["git", "rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _of_revision(revision: str) -> Side:
    """Of the study's files at the revision, and of its results there: in git, or in DVC's cache."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _extract_yaml(revision, folder)
        try:
            files = DVCFileSystem(".", rev=revision, subrepos=False)
            if not files.exists("results"):
                raise UserError(f"{revision}: no results/ in it; commit dvc.lock with a study's state")
            files.get("results", str(folder / "results"), recursive=True)
        except (DvcException, OSError) as error:
            problem = " ".join(str(error).split())
            kept = "its results are neither in Git nor in DVC's cache; commit dvc.lock with a study's state"
            raise UserError(f"{revision}: {kept} ({problem[:200]})") from None
        try:
            return _of_folder(folder, revision)
        except UserError as error:
            raise UserError(f"{revision}: {str(error).replace(f'{folder}: ', '')}") from None


def _extract_yaml(revision: str, folder: Path) -> None:
    """A study is params.yaml and the YAML files that it includes."""
    command = ["git", "archive", "--format=tar", revision, "--", ":(glob)**/*.yaml"]
    archived = subprocess.run(command, capture_output=True)
    if archived.returncode:
        raise UserError(f"{revision}: no params.yaml in it ({archived.stderr.decode(errors='replace').strip()})")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as files:
        files.extractall(folder, filter="data")


def _of_experiment(name: str) -> Side | None:
    """Of an experiment's evaluated runs, by model; ``None`` where there is no such experiment."""
    runs = _runs(name)
    if runs is None:
        return None
    if not any("loss" in run.data.metrics for run in runs):
        raise UserError(
            f"{name}: the MLflow experiment has no evaluated run; `python -m pipeline tracking sync` adds them"
        )
    models: dict[str, list[Any]] = {}
    for run in sorted(runs, key=lambda run: run.data.tags["cell"]):
        models.setdefault(_model(run), []).append(run)
    settings = list(dict.fromkeys(setting for run in runs for setting in _settings(run.data.metrics)))
    devices = dict.fromkeys(run.data.tags.get("benchmark.hardware", "") for run in runs)
    entries = [_entry(model, seeds, settings) for model, seeds in models.items()]
    return Side(name, entries, settings, _keys(runs), " and ".join(filter(None, devices)), partial=True)


def _runs(name: str) -> list[Any] | None:
    """The experiment's runs of the study's present weights, without those of DVC's experiments."""
    if not is_kept():
        return None
    from mlflow.exceptions import MlflowException

    try:
        mlflow = client()
        experiment = mlflow.get_experiment_by_name(name)
        if experiment is None:
            return None
        runs = mlflow.search_runs([experiment.experiment_id], "tags.kind = 'cell'", max_results=MOST_RUNS)
    except MlflowException as error:
        raise UserError(f"{name}: MLflow at {tracking_uri()} does not answer ({reason(error)})") from None
    return [run for run in runs if not {"superseded", "dvc_experiment"} & run.data.tags.keys()]


def _settings(metrics: dict[str, float]) -> list[str]:
    """The benchmark settings behind a run's metrics: each has its bytes per sample."""
    ending, cache = f"_{BYTES}", f"_kv_{BYTES}"
    return [key.removesuffix(ending) for key in metrics if key.endswith(ending) and not key.endswith(cache)]


def _model(run: Any) -> str:
    """What the runs of a model's seeds share: the cell's name without the seed."""
    model, budget = run.data.params.get("model", run.data.tags["cell"]), run.data.tags.get("budget")
    return model if budget is None else f"{model}-{budget}"


def _entry(name: str, runs: list[Any], settings: list[str]) -> Entry:
    """The mean over a model's runs of what all of them have."""
    metrics = [*QUALITY, *(setting_metric(setting, figure) for setting in settings for figure in (RATE, BYTES))]
    values = {}
    for metric in metrics:
        numbers = [run.data.metrics.get(in_mlflow(metric.key)) for run in runs]
        if None not in numbers:
            values[metric.key] = sum(numbers) / len(numbers)
    tags = runs[0].data.tags
    length = f" L={tags['block_length']}" if "block_length" in tags else ""
    return Entry(name, f"{tags['family']}{length}", len(runs), values)


def _keys(runs: list[Any]) -> dict[str, str]:
    """The keys of ``pretrain`` that all of the runs share; ``padding`` is a key of variants that a run notes there."""
    noted = [run.data.params.items() for run in runs]
    params = [{k: v for k, v in own if k.startswith("pretrain.") and k != "pretrain.padding"} for own in noted]
    shared = set.intersection(*(set(own.items()) for own in params)) if params else set()
    return dict(sorted(shared))
