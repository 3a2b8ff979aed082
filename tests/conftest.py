"""Fixtures that every part's tests share."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from pathlib import Path

import pytest

# One thread a test process: the tests share the cores among themselves.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell's background job ignores Ctrl-C, and so would the processes that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def _imported_to_stay() -> None:
    """Most objects are of imported libraries: what is here at a file's beginning, no collection looks through again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture
def params_text() -> str:
    """A small, well-formed study to edit; its values do not change with the repository's params.yaml."""
    return (ROOT / "tests/params.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database without runs: to make one takes seconds, to copy one does not."""
    from pipeline import tracking

    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.client().search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_database(empty_database: Path, tmp_path: Path) -> None:
    """The test's folder has MLflow's database already."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
