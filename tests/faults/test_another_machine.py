"""docs/moving.md, followed command by command: a study that is half finished goes on in another place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import tracking
from pipeline.training.curve import read_rows
from tests.documents import Snippet, snippets
from tests.faults.stages import BLOCK, ROOT, VANILLA, hashes, start


@pytest.mark.slow
def test_the_page_leads_to_another_machine(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Command by command: a finished cell is not trained again, a half-trained one from where it was."""
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("tokens: 5120", "tokens: 51200"))
    shared, other = (tmp_path_factory.mktemp(name) for name in ("shared", "machine"))
    (shared / "rest").mkdir()
    shell("git init -q --bare study.git", shared)
    shell(f"git remote add origin {shared}/study.git && git push -q -u origin HEAD", repository)
    shell(f"dvc repro pretrain-vanilla@{VANILLA}", repository)
    half_trained()
    before = hashes(repository / "checkpoints")
    old, new = (block.text.replace("/mnt/shared", str(shared)).replace("CELL", BLOCK) for block in blocks())
    shell(old, repository)
    first = [row["time"] for row in read_rows(repository / "checkpoints" / BLOCK / "curve.csv")]
    told = shell(new, other)
    moved = other / "study"
    assert f"Running stage 'pretrain-block@{BLOCK}'" in told
    assert f"Running stage 'pretrain-vanilla@{VANILLA}'" not in told
    rows = read_rows(moved / "checkpoints" / BLOCK / "curve.csv")
    assert [row["step"] for row in rows if int(row["step"]) % 2 == 0] == [str(step) for step in range(2, 201, 2)]
    resumed_from = sum(row["time"] in first for row in rows)
    assert 0 < resumed_from < 100
    assert (moved / "report/index.html").is_file()
    assert hashes(repository / "checkpoints") == before
    assert not (repository / "report").exists()
    monkeypatch.chdir(moved)
    mlflow = tracking.client()
    experiment = mlflow.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {run.info.run_name: run for run in mlflow.search_runs([experiment.experiment_id])}
    assert set(runs) == {VANILLA, BLOCK, "report"}
    assert all(run.info.artifact_uri.startswith((moved / "mlruns").as_uri()) for run in runs.values())
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def blocks() -> list[Snippet]:
    """The page's two blocks of commands: the old machine's and the new one's."""
    both = snippets("sh", ROOT / "docs/moving.md")
    assert len(both) == 2
    return both


def half_trained() -> None:
    """Stop the block transformer's training by Ctrl-C once it has a state to resume from."""
    training = start("stages.pretrain", BLOCK, PYTHONPATH=str(Path.cwd()))
    deadline = time.monotonic() + 200
    while not list(Path("checkpoints", BLOCK).glob("resume/*.ckpt")):
        assert time.monotonic() < deadline
        assert training.poll() is None
        time.sleep(0.01)
    training.send_signal(signal.SIGINT)
    _, errors = training.communicate(timeout=200)
    assert training.returncode == 130, errors


def shell(text: str, folder: Path) -> str:
    """Run a block of commands as a user does who has activated the environment; the first that fails is an error."""
    git = {f"GIT_{who}_{what}": "reader" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "PYTHONPATH")}
    ended = subprocess.run(
        ["bash", "-exc", text],
        cwd=folder,
        env=kept | git | {"PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout
