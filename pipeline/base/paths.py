"""Where everything lies, relative to the repository root. Every stage, command and test takes its paths from here."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
LOCK = Path("requirements.lock")
CORPUS = Path("data/corpus")
TOKENS = Path("data/tokens")
CAUSES = Path("data/causes")
SUPERSEDED = Path("superseded")
TRUNKS = Path("trunks")
REPORT = Path("report")
SEARCH = Path("search")
TUNE = Path("tune")
MLFLOW = Path("mlflow.db")
STUDIES = Path("studies")
RUNS = Path("runs")
LOGS = Path("logs")
PLOTS = Path("dvc_plots")


def checkpoint(cell: str) -> Path:
    """Folder of a cell's ``model.safetensors``, ``config.json``, ``tokenizer.json`` and ``curve.csv``."""
    return Path("checkpoints") / cell


def result(stage: str, cell: str) -> Path:
    """A cell's result file of one stage: ``pretrain``, ``evaluate`` or ``benchmark``."""
    return Path("results") / stage / f"{cell}.json"
