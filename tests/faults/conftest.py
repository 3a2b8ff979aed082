"""The tiny study of the training tests, to be run by stages that something happens to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.stages import SHORT
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
