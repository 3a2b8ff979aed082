"""Disks that are full or read-only: one line, nothing half-written, and a rerun does exactly what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.base.errors import UserError
from pipeline.base.files import replacing, write_json
from tests.faults.stages import BLOCK, VANILLA, hashes, leftovers, refused, run, whole_results

pytestmark = pytest.mark.slow

Mounting = Callable[..., Path]


@pytest.fixture
def mounting(study: Path) -> Iterator[Mounting]:
    """Mount a file system in memory, ``size`` large, at a folder of the study."""
    mounted: list[Path] = []

    def mount(folder: str, size: str) -> Path:
        path = study / folder
        path.mkdir(parents=True)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], capture_output=True, text=True
        )
        if made.returncode:
            pytest.skip(f"this user cannot mount a file system: {made.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", path], check=True)


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


def fill(path: Path) -> Path:
    """Take the space that is left."""
    filler = path / "filler"
    with filler.open("wb", buffering=0) as opened:
        try:
            while True:
                opened.write(bytes(4096))
        except OSError:
            return filler


@pytest.mark.parametrize("writer", ["text", "json", "torch", "safetensors"])
def test_a_file_on_a_full_disk_is_absent(mounting: Mounting, writer: str) -> None:
    """torch and safetensors say nothing of a disk; the error does."""
    disk = mounting("disk", "64k")
    weights = {"weight": torch.zeros(2**16)}

    def write() -> None:
        with replacing(disk / "file") as temporary:
            if writer == "text":
                temporary.write_text("x" * 2**18)
            elif writer == "json":
                write_json(disk / "file", ["x" * 2**18])
            elif writer == "torch":
                torch.save(weights, temporary)
            else:
                save_file(weights, temporary)

    with pytest.raises(UserError, match=r"disk/file: cannot be written \(No space left on device\)"):
        write()
    assert list(disk.iterdir()) == []


def test_training_on_a_disk_that_fills_up(mounting: Mounting) -> None:
    """At the first state to resume from, and at the weights; a rerun with space ends as if nothing had been."""
    disk = mounting("checkpoints", "16m")
    filler = fill(disk)
    os.truncate(filler, filler.stat().st_size - 40_000)
    line = refused("stages.pretrain", VANILLA)
    assert "cannot be written (No space left on device)" in line
    assert f"checkpoints/{VANILLA}" in line
    assert leftovers() == []
    assert whole_results() == []
    filler.unlink()
    run("stages.pretrain", VANILLA)
    found = hashes(disk / VANILLA)
    shutil.rmtree(disk / VANILLA)
    run("stages.pretrain", VANILLA)
    assert hashes(disk / VANILLA)["model.safetensors"] == found["model.safetensors"]
    assert hashes(disk / VANILLA).keys() == found.keys()


@pytest.mark.parametrize("stage", ["evaluate", "benchmark"])
def test_results_on_a_full_disk(mounting: Mounting, stage: str) -> None:
    run("stages.pretrain", BLOCK)
    disk = mounting(f"results/{stage}", "64k")
    filler = fill(disk)
    assert refused(f"stages.{stage}", BLOCK) == (
        f"error: results/{stage}/{BLOCK}.json: cannot be written (No space left on device); "
        "run it again once that is put right"
    )
    assert [path.name for path in disk.iterdir()] == ["filler"]
    filler.unlink()
    run(f"stages.{stage}", BLOCK)
    assert f"results/{stage}/{BLOCK}.json" in whole_results()


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("stage", ["corpus", "tokenize"])
def test_data_on_a_full_disk(mounting: Mounting, study: Path, stage: str, size: int) -> None:
    source = (study / "data").resolve()
    (study / "data").unlink()
    disk = mounting("data", "16m")
    if stage == "tokenize":
        shutil.copytree(source / "corpus", disk / "corpus")
    filler = fill(disk)
    os.truncate(filler, filler.stat().st_size - size * 64)
    before = hashes(disk)
    line = refused(f"stages.{stage}")
    assert "cannot be written (No space left on device)" in line
    assert hashes(disk) == before
    assert leftovers(disk) == []
    filler.unlink()
    run(f"stages.{stage}")
    name = {"corpus": "corpus", "tokenize": "tokens"}[stage]
    assert hashes(disk / name).keys() == hashes(source / name).keys()


def test_the_report_on_a_full_disk(mounting: Mounting) -> None:
    for stage in ("pretrain", "evaluate", "benchmark"):
        for cell in (VANILLA, BLOCK):
            run(f"stages.{stage}", cell)
    disk = mounting("report", "64k")
    line = refused("stages.report")
    assert "cannot be written (No space left on device)" in line
    assert leftovers() == []
    remount(disk, "size=64m")
    run("stages.report")
    assert (disk / "index.html").exists()


@pytest.mark.parametrize("folder", ["results/pretrain", "checkpoints"])
def test_a_folder_that_is_read_only(mounting: Mounting, folder: str) -> None:
    disk = mounting(folder, "16m")
    remount(disk, "ro")
    line = refused("stages.pretrain", VANILLA)
    assert line.startswith(f"error: {folder}/")
    assert line.endswith("cannot be written (Read-only file system); run it again once that is put right")
    remount(disk, "rw")
    run("stages.pretrain", VANILLA)
    assert whole_results() == [f"results/pretrain/{VANILLA}.json"]
