"""The default study, shortened, under `python -m pipeline run`, killed at random: it ends as under `dvc repro`."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline import tracking
from pipeline.execution.processes import FOLDER, RUN
from pipeline.study import cells, load_study
from tests.conftest import ROOT
from tests.faults.stages import hashes, leftovers, repro, start

KILLS = 10
SHORTER = {
    "tokens: 1000000": "tokens: 60000",
    "warmup_steps: 50": "warmup_steps: 5",
    "validate_every: 250": "validate_every: 25",
    "validation_tokens: 32768": "validation_tokens: 2048",
    "checkpoint_every: 100": "checkpoint_every: 10",
    "limit: 100": "limit: 5",
    "max_documents: null             # test": "max_documents: 3                # test",
    "long_context: [1, 2, 4]": "long_context: [1]",
    "repeats: 3": "repeats: 1",
    "size: [s, m]": "size: [s]",
    "jobs: null": "jobs: 2   ",
}
TIMED = re.compile(r"seconds|per_second|memory|environment|provenance")


def shortened(folder: Path) -> Path:
    """The default study on few tokens and documents, of one size: a DVC repository in Git."""
    folder.mkdir()
    for name in ("dvc.yaml", ".gitignore", ".dvcignore", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("stages", "pipeline"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for old, new in SHORTER.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    commit = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "study"]
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"], ["git", "add", "-A"], commit):
        subprocess.run(command, check=True, cwd=folder)
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """All that has no time in it: hashes of data and weights, what the results say."""
    found: dict[str, Any] = {}
    for name in ("data/corpus", "data/tokens", "checkpoints"):
        found |= {f"{name}/{path}": value for path, value in hashes(folder / name).items() if exact(path)}
    for path in sorted(folder.glob("results/*/*.json")):
        found[str(path.relative_to(folder))] = said(path)
    return found


def exact(path: str) -> bool:
    return path.endswith(("model.safetensors", "tokenizer.json", ".bin", ".jsonl"))


def said(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if path.parent.name == "benchmark":
        return {"cell": values["cell"]}
    return {key: value for key, value in values.items() if not TIMED.search(key)}


def of_runs(folder: Path) -> list[psutil.Process]:
    """Processes of stages of the folder's runs."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if RUN in environment and environment.get(FOLDER) == str(folder):
            found.append(process)
    return found


def kill(folder: Path, driver: subprocess.Popen[str], draw: random.Random) -> str:
    """Kill the driver or one of its stages' processes; what was killed, empty where there was none."""
    stages = of_runs(folder)
    if stages and draw.random() < 0.5:
        victim = draw.choice(stages)
        try:
            name = victim.environ()["DVC_STAGE"]
            victim.kill()
        except (psutil.Error, OSError):  # it has just ended
            return ""
        return name
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    deadline = time.monotonic() + 30
    while of_runs(folder):
        assert time.monotonic() < deadline, "a stage outlives its run"
        time.sleep(0.1)
    return "run"


def begin(folder: Path) -> subprocess.Popen[str]:
    return start("pipeline", "run", PYTHONPATH=str(folder))


@pytest.mark.slow
def test_ten_kills_of_a_run_and_of_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    one_by_one, folder = shortened(tmp_path / "repro"), shortened(tmp_path / "run")
    monkeypatch.chdir(one_by_one)
    begun = time.monotonic()
    repro(one_by_one)
    seconds = time.monotonic() - begun
    monkeypatch.chdir(folder)
    draw, killed, driver = random.Random(0), list[str](), begin(folder)
    while len(killed) < KILLS:
        time.sleep(draw.uniform(0, seconds / 8))
        assert driver.poll() in (None, 1), driver.communicate()
        if driver.poll() is None and (victim := kill(folder, driver, draw)):
            killed.append(victim)
        if driver.poll() is not None:
            driver = begin(folder)
    output, errors = driver.communicate(timeout=1800)
    if driver.returncode == 1:  # a stage was killed twice
        output, errors = begin(folder).communicate(timeout=1800)
    print(f"{seconds:.0f} s by dvc repro; killed: {killed}")
    assert "stages are up to date" in output, errors
    assert "Running stage 'pretrain" not in repro(folder)
    assert outcome(folder) == outcome(one_by_one)
    assert of_runs(folder) == []
    assert [each for each in leftovers(folder) if "checkpoints" in each or "results" in each] == []
    one_run_a_cell()


def one_run_a_cell() -> None:
    study = load_study()
    assert all(tracking.sync_cell(study.name, cell.name) for cell in cells(study))
    client = tracking.client()
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'cell'")
    assert sorted(run.data.tags["cell"] for run in runs) == sorted(cell.name for cell in cells(study))
    assert all(run.info.status == "FINISHED" for run in runs)


@pytest.mark.slow
def test_a_database_whose_making_was_killed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    for size in (1, 100_000, 300_000):
        code = "from pipeline import tracking; tracking.client()"
        making = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
        while not any(path.stat().st_size >= size for path in tmp_path.glob(".mlflow.db.????????")):
            assert making.poll() is None
            time.sleep(0.005)
        making.kill()
        making.wait()
        assert not Path("mlflow.db").exists()
    assert tracking.client().search_experiments()
    assert leftovers() == []
