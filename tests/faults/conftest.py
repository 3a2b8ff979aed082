"""The tiny study of the training tests, to be run by stages that something happens to."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.stages import ROOT, SHORT
from tests.training.conftest import tiny_root

__all__ = ["tiny_root"]


@pytest.fixture
def study(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the study and its data; MLflow writes to a database there."""
    (tmp_path / "data").symlink_to(tiny_root / "data")
    (tmp_path / "text").symlink_to(tiny_root / "text")
    (tmp_path / "params.yaml").write_text(SHORT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def repository(study: Path) -> Path:
    """The study with a DVC pipeline, in a Git repository."""
    (study / "data").unlink()
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, study / name)
    for name in ("stages", "pipeline"):
        shutil.copytree(ROOT / name, study / name, ignore=shutil.ignore_patterns("__pycache__"))
    texts = (study / "text").resolve()
    (study / "text").unlink()
    shutil.copytree(texts, study / "text")
    grid = "  uptrained: {source: [], block_length: [], variant: []}\n  seed: [0]\npretrained: {}\n"
    grid += "pretrain:\n  budgets: []\n"
    text = SHORT.replace("pretrain:\n", grid).replace("checkpoint_every: 4}", "checkpoint_every: 4, label: auto}")
    Path("params.yaml").write_text(text)
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "study"],
    ):
        subprocess.run(command, check=True, cwd=study)
    return study
