"""Device and precision are decided in one place; a GPU that is not there is one line, whatever asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline import device
from pipeline.base.errors import UserError
from pipeline.study.schema import Hardware
from pipeline.training.hardware import processes
from tests.training.conftest import PARAMS, tiny, tiny_root, write_texts  # noqa: F401 (two are fixtures)

NO_GPU = "error: hardware.accelerator: 'gpu' is wrong on this machine, which has no CUDA device; take 'auto'\n"
CELL = "vanilla-s-0"


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize(
    ("wanted", "count", "found"),
    [("auto", 0, "cpu"), ("auto", 1, "cuda"), ("cpu", 0, "cpu"), ("cpu", 4, "cpu"), ("gpu", 1, "cuda")],
)
def test_the_accelerator(gpus: Callable[[int], None], wanted: str, count: int, found: str) -> None:
    gpus(count)
    assert device.accelerator(Hardware(accelerator=wanted)) == found


@pytest.mark.parametrize(
    ("wanted", "on", "has_bf16", "found"),
    [
        ("auto", "cpu", True, "fp32"),
        ("auto", "cuda", True, "bf16"),
        ("auto", "cuda:1", True, "bf16"),
        ("auto", "cuda", False, "fp32"),
        ("bf16", "cpu", False, "bf16"),
        ("fp32", "cuda", True, "fp32"),
    ],
)
def test_the_precision(monkeypatch: pytest.MonkeyPatch, wanted: str, on: str, has_bf16: bool, found: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    assert device.precision(wanted, on) == found
    assert device.dtype(found) == {"fp32": torch.float32, "bf16": torch.bfloat16}[found]


@pytest.mark.parametrize(("named", "count"), [("cpu", 0), ("cuda", 1), ("cuda:0", 1), ("cuda:3", 4)])
def test_a_device_by_its_name(gpus: Callable[[int], None], named: str, count: int) -> None:
    gpus(count)
    assert device.named(named, Hardware()) == named


@pytest.mark.parametrize(
    ("named", "count", "message"),
    [
        ("cuda", 0, "'cuda' is wrong on this machine, which has no CUDA devices"),
        ("cuda:1", 1, "'cuda:1' is wrong on this machine, which has 1 CUDA devices"),
        ("gpu", 1, "'gpu' is wrong; it is cpu, cuda, or cuda:N"),
        ("mps", 0, "'mps' is wrong"),
        ("meta", 0, "'meta' is wrong"),
        ("cuda:-1", 2, "'cuda:-1' is wrong"),
        ("cuda:", 2, "'cuda:' is wrong"),
        ("CPU", 0, "'CPU' is wrong"),
        ("", 0, "'' is wrong"),
    ],
)
def test_a_device_that_is_not_there(gpus: Callable[[int], None], named: str, count: int, message: str) -> None:
    gpus(count)
    with pytest.raises(UserError, match=f"^--device: {message}"):
        device.named(named, Hardware())


COMMANDS = [
    ("pipeline", "check", "--params", "study.yaml"),
    ("pipeline", "plan"),
    ("pipeline", "plan", "--json"),
    ("pipeline", "benchmark", "--random-weights"),
    ("pipeline", "benchmark", CELL),
    ("pipeline", "generate", CELL, "--prompt", "the"),
    ("stages.pretrain", CELL),
    ("stages.evaluate", CELL),
    ("stages.benchmark", CELL),
    ("pipeline.training.profile", CELL, "--random-tokens"),
    ("pipeline.benchmark.profile", CELL),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.usefixtures("tiny")
def test_a_gpu_that_is_not_there_is_one_line(
    arguments: tuple[str, ...],
    gpus: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpus(0)
    Path("study.yaml").write_text(PARAMS, encoding="utf-8")  # params.yaml would be asked for the keys that DVC reads
    module, *rest = arguments
    monkeypatch.setattr(sys, "argv", [module, *rest, "--set", "hardware.accelerator=gpu"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    main = main_of(module)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    told = capsys.readouterr()
    assert told.err.replace(f"cell {CELL}: ", "").endswith(NO_GPU)
    assert told.out == ""
    assert list(Path("results").rglob("*.json")) == []


def test_the_stage_check_warns_alone_since_documents_need_no_gpu(
    gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gpus(0)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS, encoding="utf-8")
    write_texts(Path("text"))
    monkeypatch.setattr(sys, "argv", ["check", "--set", "hardware.accelerator=gpu"])
    main_of("stages.check")()
    assert capsys.readouterr().err == NO_GPU.replace("error", "warning")
    assert Path("data/inputs.json").is_file()


def main_of(module: str) -> Callable[[], None]:
    from importlib import import_module

    found: Callable[[], None] = import_module("pipeline.commands.main" if module == "pipeline" else module).main
    return found


BATCH = {"SLURM_JOB_ID": "4321", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "t"}
STEP = BATCH | {"SLURM_STEP_ID": "0"}
PER_NODE = "SLURM_NTASKS_PER_NODE"


@pytest.mark.parametrize(
    ("variables", "keys", "wrong"),
    [
        (BATCH | {"SLURM_NTASKS": "4", "SLURM_NNODES": "1"}, {}, "SLURM_NTASKS: 4 is wrong for 1 processes"),
        (BATCH | {"SLURM_NTASKS": "4", PER_NODE: "4"}, {"devices": 4}, "SLURM_NTASKS: 4 .* without srun"),
        (BATCH | {"SLURM_NTASKS": "1"}, {"devices": 8}, "SLURM_NTASKS: 1 is wrong for 8 processes"),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "t"}, {}, "SLURM_NTASKS: 1 is wrong for 1 processes"),
        (STEP | {"SLURM_NTASKS": "4"}, {"devices": 4}, "SLURM_NTASKS_PER_NODE: not set is wrong for 4 processes"),
        (STEP | {"SLURM_NTASKS": "2"}, {"devices": 1, "num_nodes": 2}, "SLURM_NTASKS_PER_NODE: not set"),
        (STEP | {"SLURM_NTASKS": "8", PER_NODE: "8"}, {"devices": 4}, "SLURM_NTASKS: 8 .* by srun"),
        (STEP | {"SLURM_NTASKS": "4", PER_NODE: "2"}, {"devices": 4}, "SLURM_NTASKS_PER_NODE: 2"),
        (STEP | {"SLURM_NTASKS": "4", "SLURM_NNODES": "2", PER_NODE: "4"}, {"devices": 4}, "SLURM_NNODES: 2"),
        (STEP | {"SLURM_NTASKS": "x"}, {}, "SLURM_NTASKS: x is wrong"),
    ],
)  # fmt: skip
def test_slurm_variables_that_tell_of_other_tasks(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], keys: dict[str, int], wrong: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=wrong) as error:
        processes(Hardware(**{"devices": 1} | keys), "cpu", 64)
    assert "`env -u SLURM_NTASKS ...`" in str(error.value)


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({}, 4),
        (BATCH | {"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, 1),
        (STEP | {"SLURM_NTASKS": "4", "SLURM_NNODES": "1", PER_NODE: "4"}, 4),
        (BATCH | {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"}, 1),
        (BATCH | {"SLURM_NTASKS": "1", "TORCHELASTIC_RUN_ID": "r"}, 8),
        (BATCH | {"SLURM_NNODES": "2"}, 1),
    ],
)
def test_slurm_variables_that_fit(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], devices: int) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes(Hardware(devices=devices), "cpu", 64) == devices
