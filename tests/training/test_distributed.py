"""Two processes on a CPU, as torchrun starts them, against one."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from pipeline.base import paths
from pipeline.study import Study, find_cell, load_study
from pipeline.study.recipe import OPTIMIZERS
from pipeline.training import pretrain
from pipeline.training.curve import read_rows
from pipeline.training.wrapping import sum_over_processes
from tests.training.processes import ROOT, Training

CELL = "block-s-4-base-0"


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def environments() -> list[dict[str, str]]:
    """Those of two processes, as torchrun starts them."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "TORCHELASTIC_RUN_ID": "test",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
    }
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


def start_two(pause: float = 0, cell: str = CELL) -> list[Training]:
    return [Training(cell, pause, environment) for environment in environments()]


def use(strategy: str) -> None:
    change("accelerator: cpu", f"accelerator: cpu, devices: 2, strategy: {strategy}, micro_batch_size: 2")


def change(old: str, new: str) -> None:
    path = Path("params.yaml")
    path.write_text(path.read_text().replace(old, new))


def losses(cell: str = CELL) -> list[float]:
    rows = read_rows(paths.checkpoint(cell) / "curve.csv")
    return [float(row[key]) for row in rows for key in ("train_loss", "validation_loss") if row[key]]


def test_gradients_are_exchanged_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.wrapping.AT_ONCE", 8)
    gradients = [torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3).T, torch.full((9,), 9.0), torch.tensor(4.0)]
    expected = [gradient.clone() for gradient in gradients]
    exchanged = []

    def doubled(flat: torch.Tensor, async_op: bool) -> Any:
        exchanged.append(len(flat))
        return distributed.all_reduce(flat.mul_(2), async_op=async_op)

    monkeypatch.setattr("pipeline.training.wrapping.all_reduce", doubled)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        sum_over_processes(gradients)
    finally:
        distributed.destroy_process_group()
    assert exchanged == [12, 9, 1]
    for gradient, before in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, 2 * before)


QUICK = [("ddp", "adamw"), ("fsdp", "muon")]
REST = [both for both in product(("ddp", "fsdp"), OPTIMIZERS) if both not in QUICK]


@pytest.mark.parametrize(
    ("strategy", "optimizer"), [*QUICK, *(pytest.param(*both, marks=pytest.mark.slow) for both in REST)]
)
def test_two_processes_train_as_one_does(tiny: Study, strategy: str, optimizer: str) -> None:
    change("learning_rate: 0.01", f"learning_rate: 0.01\n  optimizer: {optimizer}")
    pretrain(load_study(), find_cell(tiny, CELL))
    expected = losses()
    weights = load_file(paths.checkpoint(CELL) / "model.safetensors")
    paths.checkpoint(CELL).rename("aside")
    use(strategy)
    for training in start_two():
        training.process.join(120)
        assert training.process.exitcode == 0
    assert len(expected) == 12
    assert losses() == pytest.approx(expected, abs=1e-5)
    for name, weight in load_file(paths.checkpoint(CELL) / "model.safetensors").items():
        torch.testing.assert_close(weight, weights[name], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("strategy", "optimizer"),
    [
        ("ddp", "adamw"),
        pytest.param("fsdp", "adamw", marks=pytest.mark.slow),
        pytest.param("fsdp", "muon", marks=pytest.mark.slow),
    ],
)
def test_two_killed_processes_go_on(tiny: Study, strategy: str, optimizer: str) -> None:
    use(strategy)
    change("learning_rate: 0.01", f"learning_rate: 0.01\n  optimizer: {optimizer}")
    for training in start_two():
        training.process.join(120)
    expected = losses()
    paths.checkpoint(CELL).rename("aside")
    both = start_two(pause=0.1)
    both[0].wait_for_step(10)
    for training in both:
        training.kill()
    for training in start_two():
        training.process.join(120)
    assert losses() == expected


@pytest.mark.parametrize(("strategy", "begins"), [("ddp", 12), pytest.param("fsdp", 0, marks=pytest.mark.slow)])
def test_two_processes_begin_in_a_trunk(tiny: Study, strategy: str, begins: int) -> None:
    """With the state of one process, unless theirs have another form.

    The second may look for it before the first has copied it to its place.
    """
    change("learning_rate: 0.01", "learning_rate: 0.01\n  schedule: wsd\n  budgets: [3840]")
    cell = f"{CELL}-3840"
    pretrain(load_study(), find_cell(load_study(), cell))
    expected = losses(cell)
    paths.checkpoint(cell).rename("aside")
    use(strategy)
    for training in start_two(cell=cell):
        training.process.join(120)
        assert training.process.exitcode == 0
    assert losses(cell) == pytest.approx(expected, abs=1e-5)
    times = [row["time"] for row in read_rows(paths.checkpoint(cell) / "curve.csv") if int(row["step"]) <= 12]
    earlier = [row["time"] for row in read_rows(Path("aside/curve.csv")) if int(row["step"]) <= 12]
    assert (times == earlier) is (begins == 12)


@pytest.mark.slow
def test_ranks_that_find_different_states_of_the_trunk_all_end_in_one_line(tiny: Study) -> None:
    """The second sees a folder to which another run has added a state meanwhile."""
    change("learning_rate: 0.01", "learning_rate: 0.01\n  schedule: wsd\n  budgets: [1536, 3840]")
    use("ddp")
    alone = ["hardware.devices=1"]
    pretrain(load_study(overrides=alone), find_cell(load_study(), f"{CELL}-1536"))
    here, there = Path.cwd(), Path("there")
    shutil.copytree(".", there, symlinks=True, ignore=shutil.ignore_patterns("there"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(there)
        pretrain(load_study(overrides=alone), find_cell(load_study(), f"{CELL}-3840"))
    states = [sorted(path.name for path in folder.glob(f"trunks/{CELL}/*/*.ckpt")) for folder in (here, there)]
    assert states == [["5.ckpt"], ["12.ckpt", "5.ckpt"]]
    main = (
        "from pipeline.base.command import command; from pipeline.training import pretrain;"
        "from pipeline.study import find_cell, load_study; study = load_study();"
        f"command(pretrain)(study, find_cell(study, {CELL!r}))"
    )
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", main],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder, environment in zip((here, there), environments(), strict=True)
    ]
    for rank in ranks:
        errors = rank.communicate(timeout=300)[1].splitlines()
        assert rank.returncode == 1, errors
        assert re.fullmatch(
            rf"error: {CELL}: another run has just added to trunks/{CELL}/[\w-]+; run it again", errors[-1]
        )
        assert not any("Traceback" in line for line in errors)
