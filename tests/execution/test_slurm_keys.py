"""What jobs ask SLURM for, by the study's keys, and a study that is edited while they wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.data import model_vocabulary
from pipeline.execution.slurm.edits import require_unedited
from pipeline.execution.slurm.queue import queued, require_slurm, words
from pipeline.execution.slurm.submission import Submission, parameters
from pipeline.execution.stages import Stage
from pipeline.study import load_study
from pipeline.study.causes import write_causes

KEYS = [
    "run.slurm.partition=gpu",
    "run.slurm.memory=1.5",
    "run.slurm.options={qos: low, nice: 3}",
    "run.slurm.jobs={pretrain: {time: 600, cpus: 8}, prepare: {partition: cpu}}",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, params_text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text(params_text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def test_each_kind_of_job_asks_for_what_the_keys_say() -> None:
    study = load_study("params.yaml", KEYS)
    training, preparing, timing = (parameters(study, kind) for kind in ("pretrain", "prepare", "benchmark"))
    assert (training["partition"], training["time"], training["mem"], training["gpus_per_node"]) == (
        "gpu",
        600,
        "1536M",
        1,
    )
    assert (training["cpus_per_task"], training["exclusive"]) == (8, None)
    assert "--cpus-per-task=8" in training["srun_args"]
    assert (preparing["partition"], preparing["time"], preparing["gpus_per_node"]) == ("cpu", 60, None)
    assert (timing["gpus_per_node"], timing["exclusive"]) == (1, True)
    assert timing["additional_parameters"] == {
        **{"requeue": True, "kill-on-invalid-dep": "yes", "signal": "TERM@120", "qos": "low", "nice": 3},
    }


@pytest.mark.parametrize(
    ("keys", "gpus"),
    [
        (["hardware.devices=4"], 4),
        (["hardware.devices=4", "run.slurm.gpus=8"], 8),
        (["run.slurm.gpus=8", "run.slurm.jobs={evaluate: {gpus: 1}}"], 1),
        (["hardware.accelerator=cpu"], None),
        (["run.slurm.gpus=0"], None),
    ],
)
def test_gpus_of_an_evaluation(keys: list[str], gpus: int | None) -> None:
    assert parameters(load_study("params.yaml", keys), "evaluate")["gpus_per_node"] == gpus


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("time=0", r"run\.slurm\.time: 0 is wrong; it must be greater than 0"),
        ("gpus=-1", r"run\.slurm\.gpus: -1 is wrong; it is 0 or more"),
        ("notice=3600", r"run\.slurm\.notice: 3600 is wrong; it is 0 or more, and less than run\.slurm\.time"),
        ("exclusive=[benchmarks]", r"run\.slurm\.exclusive: 'benchmarks' is wrong; did you mean 'benchmark'\?"),
        ("jobs={train: {}}", r"run\.slurm\.jobs: 'train' is wrong; .*pretrain"),
        ("jobs={report: {cpus: 0}}", r"run\.slurm\.jobs\.report\.cpus: 0 is wrong"),
        ("options={array: 3}", r"run\.slurm\.options: 'array' is wrong; a submission sets this option itself"),
        ("options={--qos: low}", r"run\.slurm\.options: '--qos' is wrong; .* without the dashes"),
    ],
)
def test_keys_that_are_refused(key: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_study("params.yaml", [f"run.slurm.{key}"])


def test_a_job_whose_study_was_edited_after_submission_refuses() -> None:
    study = load_study()
    write_causes(study, model_vocabulary(study.tokenize))
    stages = [Stage("pretrain-vanilla@vanilla-s-0", "", ()), Stage("evaluate-vanilla@vanilla-s-0", "", ())]
    edit("log_every: 10", "log_every: 20")  # decides no result
    for stage in stages:
        require_unedited(stage)
    edit("learning_rate: 2.0e-3", "learning_rate: 3.0e-3")
    with pytest.raises(UserError, match=r"pretrain-vanilla@vanilla-s-0: .*data/causes/cells/vanilla-s-0\.json"):
        require_unedited(stages[0])
    require_unedited(stages[1])
    edit("limit: 100", "limit: 50")
    with pytest.raises(UserError, match=r"evaluate-vanilla@vanilla-s-0: .*data/causes/evaluate\.json"):
        require_unedited(stages[1])


def edit(old: str, new: str) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_record_that_is_damaged_is_named() -> None:
    submission = Submission("study")
    submission.record.parent.mkdir(parents=True)
    submission.record.write_text('[{"job": 3}]')
    with pytest.raises(UserError, match=r"logs/slurm/study/jobs\.json: it is damaged"):
        submission.arrays()


def test_what_sbatch_says_is_said_once() -> None:
    errors = "sbatch: error: invalid partition: x\nsbatch: error: invalid partition: x\nsbatch: error: failed: y\n"
    assert words("sbatch", errors) == "sbatch: invalid partition: x; failed: y"
    assert words("sbatch", "") == "sbatch: failed and said nothing"


def test_a_machine_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"--on slurm: there is no sbatch, squeue, scancel, scontrol, srun here; run it on"
    ):
        require_slurm()
    assert queued({"1": "tiny-pretrain"}) == {}
