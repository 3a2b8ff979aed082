"""Where stages may run, by what is taken: no machine needs to have these GPUs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.execution.resources import Machine, Place, gpus_of
from pipeline.study import Study, load_study
from pipeline.study.schema import Hardware, Run


def fill(machine: Machine, *kinds: str, taken: tuple[Place, ...] = ()) -> list[str | None]:
    """Where each of these stages goes, one after the other, beside what is taken."""
    places: list[Place | None] = []
    for kind in kinds:
        places.append(machine.place(kind, [*taken, *filter(None, places)]))
    return [None if place is None else str(place) for place in places]


def test_a_training_or_an_evaluation_takes_a_gpu() -> None:
    eight = Machine(tuple("01234567"))
    assert fill(eight, *["pretrain"] * 9) == [f"GPU {number}" for number in range(8)] + [None]
    assert fill(eight, "pretrain", "evaluate", "benchmark", "pretrain") == ["GPU 0", "GPU 1", "GPU 2", "GPU 3"]
    assert Place(("2", "3")).environment == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert Place(job=True).environment == {}


def test_several_share_a_gpu_but_a_benchmark_has_it_to_itself() -> None:
    two = Machine(("4", "GPU-7f"), per_gpu=2)
    assert fill(two, *["pretrain"] * 5) == ["GPU 4", "GPU GPU-7f", "GPU 4", "GPU GPU-7f", None]
    assert fill(two, "pretrain", "benchmark", "benchmark", "evaluate", "evaluate") == [
        "GPU 4", "GPU GPU-7f", None, "GPU 4", None,
    ]  # fmt: skip
    assert fill(two, "benchmark", taken=(Place(("4",)), Place(("GPU-7f",)))) == [None]


def test_a_training_over_several_gpus_has_them_to_itself() -> None:
    four = Machine(tuple("0123"), per_gpu=3, devices=2)
    assert fill(four, "pretrain", "pretrain", "pretrain") == ["GPU 0, 1", "GPU 2, 3", None]
    assert fill(four, "evaluate", "pretrain", "pretrain", "evaluate") == ["GPU 0", "GPU 1, 2", None, "GPU 3"]


def test_without_a_gpu_jobs_share_the_machine_and_a_benchmark_has_it_alone() -> None:
    machine = Machine((), jobs=2)
    assert fill(machine, "pretrain", "evaluate", "pretrain", "tokenize") == ["CPU", "CPU", None, "CPU"]
    assert fill(machine, "benchmark", "pretrain", "tokenize", "benchmark") == ["CPU, alone", None, None, None]
    assert fill(machine, "benchmark", taken=(Place(),)) == [None]


@pytest.fixture
def study(tmp_path: Path, params_text: str) -> Study:
    (tmp_path / "params.yaml").write_text(params_text, encoding="utf-8")
    return load_study(tmp_path / "params.yaml")


def test_the_study_says_how_the_machine_is_shared(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert Machine.of(study, ("0", "1")) == Machine(("0", "1"), per_gpu=1, devices=1, jobs=1)
    shared = dataclasses.replace(study, run=Run(per_gpu=3, jobs=5), hardware=Hardware(devices=2))
    assert Machine.of(shared, ("0", "1")) == Machine(("0", "1"), per_gpu=3, devices=2, jobs=5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for threads, jobs in (("1", 8), ("3", 2), ("16", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert Machine.of(study, ()).jobs == jobs
    assert gpus_of(dataclasses.replace(study, hardware=Hardware(accelerator="cpu"))) == ()


def test_more_than_there_is_is_refused(study: Study, tmp_path: Path, params_text: str) -> None:
    many = dataclasses.replace(study, hardware=Hardware(devices=3))
    with pytest.raises(UserError, match=r"hardware\.devices: 3 is wrong on this machine, which has 2 GPUs \(0, 5\)"):
        Machine.of(many, ("0", "5"))
    nodes = dataclasses.replace(study, hardware=Hardware(num_nodes=2))
    with pytest.raises(UserError, match=r"hardware\.num_nodes: 2 is wrong on one machine"):
        Machine.of(nodes, ("0",))
    for key, value in (("per_gpu", 0), ("jobs", -1)):
        with pytest.raises(UserError, match=rf"run\.{key}: {value} is wrong; it must be greater than 0"):
            load_study(tmp_path / "params.yaml", [f"run.{key}={value}"])
