"""A pipeline of the study's shape, whose stages end at once, as jobs of a real SLURM."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import UserError
from pipeline.execution.repository import Repository
from pipeline.execution.slurm import queue
from pipeline.execution.slurm.arrays import arrays
from pipeline.execution.slurm.status import board_of
from pipeline.execution.slurm.submission import Submission
from pipeline.execution.slurm.task import Task
from pipeline.execution.stages import CHECK, with_needs
from pipeline.results.failures import failure
from pipeline.study import Study, load_study
from pipeline.study.schema import Run, Slurm
from tests.conftest import ROOT
from tests.execution.conftest import _prepared, pipeline, ran
from tests.execution.test_scheduler import MEET, states, tell
from tests.slurm.cluster import Cluster, running, wait

__all__ = ["_prepared", "pipeline"]
SUBMISSION = Submission("study")
pytestmark = pytest.mark.usefixtures("pipeline")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def study(**keys: Any) -> Study:
    """One with these keys of ``run.slurm``."""
    loaded = load_study(ROOT / "tests/params.yaml")
    return dataclasses.replace(loaded, run=Run(slurm=Slurm(**keys)))


def hand_over(names: Iterable[str] = (), largest: int = 1001, **keys: Any) -> None:
    """Submit these stages and what they need, or all; `check` runs here."""
    repository = Repository()
    subprocess.run([sys.executable, "stage.py", "check"], check=True)
    repository.note(CHECK)
    ran()
    stages = with_needs(repository.stages, names) if names else repository.stages
    planned = arrays({name: stage for name, stage in stages.items() if name != CHECK}, largest)
    handed = study(**keys)
    SUBMISSION.submit(handed, planned, partial(Task, requeues=handed.run.slurm.requeues))


def stand(cluster: Cluster) -> dict[str, list[str]]:
    """The submitted stages by state, once nothing is queued."""
    wait(lambda: not cluster.jobs(), 300, "the end of the jobs")
    return states(board_of(Repository(), SUBMISSION, {}))


def job(cluster: Cluster, name: str) -> str:
    """The id of a stage's job, once it runs."""
    ids = {stage: job for array in SUBMISSION.arrays() for job, names in array.jobs.items() for stage in names}
    wait(lambda: cluster.jobs().get(ids[name]) == "RUNNING", 120, f"the start of {name}")
    return ids[name]


def test_independent_stages_run_at_once_on_a_gpu_each(cluster: Cluster) -> None:
    tell("pretrain", "a", MEET)
    tell("pretrain", "b", MEET)
    hand_over(["evaluate-x@a", "evaluate-x@b"], gpus=1)
    names = ["evaluate-x@a", "evaluate-x@b", "pretrain-x@a", "pretrain-x@b", "tokenize"]
    assert stand(cluster) == {"done": names}
    lines = ran()
    assert lines[0] == "tokenize  -"
    assert sorted(line.split()[::2] for line in lines[1:3]) == [["pretrain", "0"], ["pretrain", "1"]]
    assert sorted(line.split()[1] for line in lines[3:]) == ["a", "b"]
    assert not any(Repository().changed(name) for name in names)


@pytest.mark.slow
def test_a_cell_that_fails_takes_its_dependents_with_it_and_no_other(cluster: Cluster) -> None:
    tell("pretrain", "a", "print('error: out of memory with micro-batches of 4'); sys.exit(1)")
    hand_over()
    assert stand(cluster) == {
        "done": ["evaluate-x@b", "pretrain-x@b", "report", "tokenize"],
        "failed": ["pretrain-x@a"],
        "skipped": ["evaluate-x@a"],
    }
    assert failure("pretrain", "a") == "out of memory with micro-batches of 4"
    assert ran()[-1] == "report  -"

    tell("pretrain", "a", "os.kill(os.getpid(), signal.SIGKILL)")
    hand_over(["pretrain-x@a"])
    assert stand(cluster) == {"done": ["tokenize"], "failed": ["pretrain-x@a"]}
    assert (
        board_of(Repository(), SUBMISSION, {})
        .entries["pretrain-x@a"]
        .why.startswith("ended by SIGKILL; its node or its job (run.slurm.memory)")
    )


@pytest.mark.slow
def test_when_what_all_need_fails_the_report_runs_nevertheless(cluster: Cluster) -> None:
    tell("tokenize", "", "sys.exit('error: data/corpus: no such file')")
    hand_over()
    assert stand(cluster) == {
        "failed": ["report", "tokenize"],
        "skipped": ["evaluate-x@a", "evaluate-x@b", "pretrain-x@a", "pretrain-x@b"],
    }
    entries = board_of(Repository(), SUBMISSION, {}).entries
    assert entries["tokenize"].why == "data/corpus: no such file"
    assert entries["report"].why.endswith("results: no such file or folder; what makes it has failed")


STOPPABLE = """
state = Path("checkpoints/a/resume/x.ckpt")
def stop(*_):
    if SAVES:
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_text("saved")
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
Path(f"started{len(list(Path().glob('started*')))}").touch()
while not (state.exists() and ENDS): time.sleep(0.05)
"""


def starts() -> int:
    return len(list(Path().glob("started*")))


@pytest.mark.slow
def test_a_job_that_is_told_to_end_is_queued_again_and_goes_on(cluster: Cluster) -> None:
    tell("pretrain", "a", STOPPABLE.replace("SAVES", "True").replace("ENDS", "True"))
    hand_over(["evaluate-x@a"])
    first = job(cluster, "pretrain-x@a")
    wait(lambda: starts() == 1, 60, "the stage")
    cluster.ask("scancel", "--signal=TERM", first)  # as a preemption with a grace begins, and the end of its time
    assert stand(cluster) == {"done": ["evaluate-x@a", "pretrain-x@a", "tokenize"]}
    assert starts() == 2
    assert [line.split()[0] for line in ran()] == ["tokenize", "pretrain", "pretrain", "evaluate"]


@pytest.mark.slow
def test_a_job_that_comes_no_further_is_not_queued_again_for_ever(cluster: Cluster) -> None:
    tell("pretrain", "a", STOPPABLE.replace("SAVES", "False").replace("ENDS", "False"))
    hand_over(["evaluate-x@a"])
    for number in (1, 2):
        name = job(cluster, "pretrain-x@a")
        wait(lambda number=number: starts() == number, 60, "the stage")  # type: ignore[misc]
        cluster.ask("scancel", "--signal=TERM", name)
        wait(lambda name=name: cluster.jobs().get(name) != "RUNNING", 60, "its end")  # type: ignore[misc]
    assert stand(cluster)["failed"] == ["pretrain-x@a"]
    assert "twice in a row" in str(failure("pretrain", "a"))


@pytest.mark.slow
def test_a_job_is_queued_again_so_often_and_no_more(cluster: Cluster) -> None:
    tell("pretrain", "a", STOPPABLE.replace("SAVES", "True").replace("ENDS", "False"))
    hand_over(["pretrain-x@a"], requeues=1)
    name = job(cluster, "pretrain-x@a")
    for number, command in enumerate((["scontrol", "requeue"], ["scancel", "--signal=TERM"]), 1):
        wait(lambda number=number: starts() == number, 60, "the stage")  # type: ignore[misc]
        cluster.ask(*command, name)
    assert stand(cluster)["failed"] == ["pretrain-x@a"]
    assert failure("pretrain", "a") == "its job was queued again 1 times, as often as run.slurm.requeues allows"


@pytest.mark.slow
def test_arrays_are_cut_to_the_largest_and_two_studies_share_a_cluster(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Path.cwd(), tmp_path / "second"
    subprocess.run(["cp", "-r", first, second], check=True)
    hand_over(largest=1)
    assert [len(array.tasks) for array in SUBMISSION.arrays()] == [1] * 6
    monkeypatch.chdir(second)
    hand_over()
    everything = sorted(set(Repository().stages) - {CHECK})
    assert stand(cluster) == {"done": everything}
    monkeypatch.chdir(first)
    assert stand(cluster) == {"done": everything}
    assert len(ran("pretrain")) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"partition": "nope"}, "invalid partition specified: nope"),
        ({"gpus": 3}, "Requested node configuration is not available"),
        ({"options": {"nope": 1}}, "unrecognized option"),
    ],
)
def test_what_slurm_refuses_is_one_line_and_nothing_stays_queued(
    cluster: Cluster, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        hand_over(**keys)
    line = str(raised.value)
    assert line.count(said) == 1
    assert "\n" not in line
    wait(lambda: not cluster.jobs(), 20, "an empty queue")
    assert not SUBMISSION.record.exists()
    assert ran() == []


@pytest.mark.slow
def test_a_queue_that_is_full_gets_nothing_of_the_study(
    tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path_factory.mktemp("small"), jobs=6) as small:
        for name, value in small.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match=r"run\.slurm, jobs .*: sbatch: .*; nothing was submitted"):
            hand_over()
        wait(lambda: not small.jobs(), 20, "an empty queue")
        assert not SUBMISSION.record.exists()
        assert queue.largest_array() == 1001
