"""`python -m pipeline run --on slurm` on a real SLURM: each command ends at once, and no process of it stays."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.base.files import read_json
from tests.faults.stages import BLOCK, ROOT, VANILLA, repro, run
from tests.search.conftest import TUNE
from tests.slurm.cluster import Cluster, wait
from tests.slurm.conftest import Handed
from tests.test_edits import RUNS, runs_of_cells

WEIGHTS = Path(f"checkpoints/{VANILLA}/model.safetensors")
PRETRAIN = ["stages.pretrain", VANILLA]
LONG = ("tokens: 5120", "tokens: 256000")


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def undisturbed() -> str:
    """The hash of the vanilla cell's weights, trained anew in one go."""
    shutil.rmtree(WEIGHTS.parent)
    run("stages.pretrain", VANILLA)
    return sha(WEIGHTS)


@pytest.mark.slow
def test_a_study_from_nothing_to_the_report(handed: Handed) -> None:
    printed = handed.run("--on", "slurm")
    assert [line.split()[1:3] for line in printed.splitlines()[1:6]] == [
        *(["prepare", "1"], ["pretrain", "2"], ["benchmark", "2"], ["evaluate", "2"], ["report", "1"])
    ]
    handed.settle()
    assert set(RUNS.findall(repro(handed.folder))) - {"check"} == set()
    reported = read_json(handed.folder / "report/report.json")
    assert (reported["cells"], reported["missing"]) == (2, [])
    assert runs_of_cells() == sorted([VANILLA, BLOCK])
    assert handed.run("--status").splitlines()[-1] == "nothing is queued any more; all is done"
    assert "everything is up to date" in handed.run("--on", "slurm")
    assert handed.cluster.jobs() == {}


@pytest.mark.slow
def test_the_default_studys_grid(handed: Handed) -> None:
    """From nothing to the report, with the main study's cells and keys but for training tokens."""
    text = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("  tokens: 1000000 ", "  tokens: 65536 "))
    assert handed.run("--on", "slurm").splitlines()[2].split()[1:3] == ["pretrain", "8"]
    handed.settle(1800)
    assert set(RUNS.findall(repro(handed.folder))) - {"check"} == set()
    reported = read_json(handed.folder / "report/report.json")
    assert (reported["cells"], reported["missing"]) == (8, [])
    assert len(runs_of_cells()) == 8


@pytest.mark.slow
def test_a_cell_that_fails_is_missing_in_the_report(handed: Handed) -> None:
    handed.edit("tokens: 5120", "tokens: 1280")
    Path("checkpoints").mkdir()
    Path(f"checkpoints/{VANILLA}").write_text("in the way")
    handed.run("--on", "slurm")
    handed.settle()
    reported = read_json(Path("report/report.json"))
    assert (reported["cells"], [each["cell"] for each in reported["missing"]]) == (1, [VANILLA])
    status = handed.run("--status").splitlines()
    assert any(line.startswith(f"failed: pretrain-vanilla@{VANILLA}: ") for line in status)
    assert f"skipped: evaluate-vanilla@{VANILLA}: it needs pretrain-vanilla@{VANILLA}" in status
    assert status[-1].endswith("goes on with 4 stages")


@pytest.mark.slow
def test_jobs_that_are_requeued_and_preempted_end_bit_equal(handed: Handed) -> None:
    handed.edit(*LONG)
    handed.run(VANILLA, "--on", "slurm")
    job = pretraining(handed)
    disturb_when_saved(job, handed, lambda: handed.cluster.ask("scontrol", "requeue", job))
    disturb_when_saved(job, handed, lambda: preempt(handed.cluster))
    handed.settle()
    log = Path(f"logs/run/pretrain-vanilla@{VANILLA}.log").read_text()
    assert log.count("(job ") == 3
    assert sha(WEIGHTS) == undisturbed()


def pretraining(handed: Handed) -> str:
    """The id of the vanilla cell's training, once it runs."""
    (array,) = [each for each in read_json(Path("logs/slurm/study/jobs.json")) if each["kind"] == "pretrain"]
    wait(lambda: handed.cluster.jobs().get(array["job"]) == "RUNNING", 120, "the training's job")
    return str(array["job"])


def disturb_when_saved(job: str, handed: Handed, disturb: Callable[[], object], seconds: float = 60) -> None:
    """Do it once the job's training has saved a new state, and wait until the job is out of the queue's head."""
    states = WEIGHTS.parent / "resume"
    wait(lambda: handed.cluster.jobs().get(job) == "RUNNING", 120, "the job's start")
    before = newest(states)
    wait(lambda: newest(states) > before, 120, "a state to resume from")
    disturb()
    wait(lambda: handed.cluster.jobs().get(job) == "PENDING", seconds, "the job's return to the queue")


def newest(folder: Path) -> int:
    return max((path.stat().st_mtime_ns for path in folder.glob("*.ckpt")), default=0)


def preempt(cluster: Cluster) -> None:
    """Let a job of higher priority take the whole node, which a grace of 40 s must not delay."""
    began = time.monotonic()
    job = cluster.ask("sbatch", "--parsable", "-p", "high", "-c", "2", "-o", "/dev/null", "--wrap", "sleep 2").strip()
    wait(lambda: cluster.jobs().get(job) == "RUNNING", 60, "the job of higher priority")
    assert time.monotonic() - began < 35


@pytest.mark.slow
def test_a_training_that_reaches_its_time_limit_is_queued_again_and_ends_bit_equal(handed: Handed) -> None:
    handed.edit(*LONG)
    handed.slurm(time=2, notice=10, requeues=30)
    handed.run(VANILLA, "--on", "slurm")
    job = pretraining(handed)
    disturb_when_saved(job, handed, pause, seconds=180)
    handed.settle()
    assert Path(f"logs/run/pretrain-vanilla@{VANILLA}.log").read_text().count("(job ") >= 2
    assert sha(WEIGHTS) == undisturbed()


def pause() -> None:
    """Halt the training; SLURM lets it go on when it sends SIGTERM, at the end of its time."""
    (process,) = [
        each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"][-2:] == PRETRAIN and here(each)
    ]
    process.suspend()


def here(process: psutil.Process) -> bool:
    return Path(process.cwd()) == Path.cwd()


@pytest.mark.slow
def test_a_cancelled_study_goes_on_and_is_submitted_once_at_a_time(handed: Handed) -> None:
    handed.edit(*LONG)
    handed.run("--on", "slurm")
    assert handed.refused("--on", "slurm").startswith("error: 8 jobs of this study are in SLURM's queue; ")
    wait(lambda: newest(WEIGHTS.parent / "resume") > 0, 300, "a state to resume from")
    assert "running: pretrain-vanilla@vanilla-s-0 (step " in handed.run("--status")
    assert "jobs were cancelled" in handed.run("--cancel")
    assert handed.cluster.jobs() == {}
    assert newest(WEIGHTS.parent / "resume") > 0
    before = Path(f"checkpoints/{VANILLA}/curve.csv").read_text()
    handed.run("--on", "slurm")
    handed.settle()
    assert Path(f"checkpoints/{VANILLA}/curve.csv").read_text().startswith(before.rpartition("\n")[0][:200])
    assert handed.run("--status").splitlines()[-1] == "nothing is queued any more; all is done"


SEARCH = """
search:
  trials: 4
  size: s
  variant: base
  setting: short
  objectives: [loss]
  space: {block_length: [2, 4], token_layers: [1, 2]}
  tokens: 1280
"""


@pytest.mark.slow
def test_workers_of_a_search_share_a_journal(handed: Handed) -> None:
    with Path("params.yaml").open("a") as opened:
        opened.write(SEARCH)
    run("stages.corpus")
    run("stages.tokenize")
    refused = handed.refused("--on", "slurm", "--workers", "2", command="search")
    assert refused.startswith("error: search.storage: None is wrong; workers on several nodes need a database's URL")
    handed.edit("  tokens: 1280\n", "  tokens: 1280\n  storage: search/journal.log\n")
    assert ": 2 workers; " in handed.run("--on", "slurm", "--workers", "2", command="search")
    assert handed.refused("--on", "slurm", command="search").startswith("error: 2 jobs of this study are in SLURM's")
    handed.settle()
    trials = read_json(Path("search/results.json"))["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 4
    assert [Path(f"logs/run/search@{number}.log").read_text().count("(job ") for number in (0, 1)] == [1, 1]
    assert handed.run("--status", command="search") == "no worker is queued any more\n"


@pytest.mark.slow
def test_workers_of_a_tuning_share_its_models(handed: Handed) -> None:
    with Path("params.yaml").open("a") as opened:
        opened.write(TUNE)
    run("stages.corpus")
    run("stages.tokenize")
    assert ": 2 workers; " in handed.run("--on", "slurm", "--workers", "2", command="tune")
    handed.settle()
    models = read_json(Path("tune/results.json"))["models"]
    assert [(model["model"], len(model["trials"])) for model in models] == [("vanilla-s", 3), ("block-s-4-base", 3)]
    assert Path("tune/recipes.yaml").is_file()
    assert handed.run("--status", command="tune") == "no worker is queued any more\n"


RECIPE = f"""#!/bin/bash
#SBATCH --nodes=1 --ntasks-per-node=2 --signal=TERM@120 --output=job.log
srun {sys.executable} -m stages.pretrain {VANILLA}
"""


@pytest.mark.slow
def test_a_cell_over_two_tasks_of_srun_by_hand(handed: Handed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(handed.folder))
    run("stages.corpus")
    run("stages.tokenize")
    handed.edit("{accelerator: cpu,", "{accelerator: cpu, devices: 2,")
    Path("job.sh").write_text(RECIPE)
    assert handed.cluster.ask("sbatch", "job.sh").startswith("Submitted")
    handed.settle()
    two = read_json(Path(f"results/pretrain/{VANILLA}.json"))
    handed.edit("devices: 2", "devices: 1")
    undisturbed()
    one = read_json(Path(f"results/pretrain/{VANILLA}.json"))
    assert two["steps"] == one["steps"] == 20
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-5)
