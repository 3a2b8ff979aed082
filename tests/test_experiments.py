"""Experiments of DVC beside a finished study: docs/sweeps.md's commands leave it bit-equal."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import tracking
from tests.execution.test_noted import commit
from tests.faults.stages import hashes
from tests.test_studies import TINY

OURS = {".git", ".dvc", "mlflow.db", "mlflow.lock", "pipeline", "stages"}
"""What Git, DVC and MLflow write of an experiment, and links to the code."""


@pytest.fixture
def finished(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git repository with a study that has run, dvc.lock committed."""
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "requirements.lock"):
        shutil.copy(root / name, tmp_path / name)
    for name in ("pipeline", "stages"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "texts").mkdir()
    for number in range(10):
        (tmp_path / f"texts/{number}.txt").write_text(f"document {number} says that plain text repeats. " * 20)
    (tmp_path / "params.yaml").write_text(TINY.replace("{context_length", "{learning_rate: 2.0e-3, context_length"))
    shutil.copytree(root / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    subprocess.run(["git", "init", "-q"], check=True)
    commit()
    run("dvc repro")
    assert "dvc.lock is not committed: `git add params.yaml dvc.lock && git commit`" in run("python -m pipeline show")
    commit()
    assert "not committed" not in run("python -m pipeline show")
    return tmp_path


def run(command: str) -> str:
    """Run a command to a good end; what it printed."""
    ended = subprocess.run(shlex.split(command, comments=True), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def state(experiment: str | None = None) -> dict[str, Any]:
    """The study's files, its runs in MLflow with all that they hold, and its MLflow experiment's tags."""
    mlflow = tracking.client()
    found = mlflow.get_experiment_by_name("tiny")
    assert found is not None
    runs = [
        run for run in mlflow.search_runs([found.experiment_id]) if run.data.tags.get("dvc_experiment") == experiment
    ]
    held = {run.info.run_name: (run.to_dictionary(), artifacts(run.info.run_id)) for run in runs}
    files = hashes(Path()) if experiment is None else {}
    own = {name: digest for name, digest in files.items() if Path(name).parts[0] not in {*OURS, "mlruns"}}
    return {"files": own, "runs": held, "tags": found.tags}


def artifacts(run: str) -> dict[str, str]:
    """Hash of each of a run's artifacts."""
    (folder,) = Path("mlruns/tiny").glob(f"{run}/artifacts")
    return hashes(folder)


def of_documents(root: Path, name: str) -> str:
    """The first experiment that a document shows."""
    (command, *_) = re.findall(r"^(dvc exp run .*)$", (root / name).read_text(encoding="utf-8"), re.MULTILINE)
    return str(command)


@pytest.mark.slow
def test_an_experiment_beside_a_finished_study_leaves_it_bit_equal(finished: Path, root: Path) -> None:
    before = state()
    assert set(before["runs"]) == {"block-s-4-base-0", "report"}
    command = of_documents(root, "docs/sweeps.md")
    assert "--temp -S pretrain.learning_rate=1e-3 --name slower" in command
    run(command)
    assert state() == before
    (other,) = [run for name, (run, _) in state("slower")["runs"].items() if name != "report"]
    assert other["data"]["params"]["pretrain.learning_rate"] == "0.001"
    assert run("git status --porcelain") == ""

    run("dvc exp run --queue -S pretrain.learning_rate=4e-3 --name queued")
    run("dvc queue start")
    deadline = time.monotonic() + 600
    while not re.search("queued .*Success", status := run("dvc queue status")):
        assert time.monotonic() < deadline, status
        time.sleep(5)
    assert state() == before
    assert set(state("queued")["runs"]) == {"block-s-4-base-0", "report"}

    shown = run("dvc exp show --csv")
    assert {"slower", "queued"} <= set(re.findall(r"slower|queued", shown))
    assert re.findall("Running stage '(.*)'", run("dvc repro")) == ["check"]
    after = state()
    assert {name: after[name] for name in ("runs", "tags")} == {name: before[name] for name in ("runs", "tags")}
