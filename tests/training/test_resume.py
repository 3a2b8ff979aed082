"""Runs that are really killed and interrupted, in processes of their own."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.base import paths
from pipeline.study import Study, find_cell, load_study
from pipeline.training import pretrain
from pipeline.training.curve import read_rows
from pipeline.training.job import Job
from tests.changed import changed
from tests.training.processes import Training

BLOCK, VANILLA = "block-s-4-base-0", "vanilla-s-0"


def finish(study: Study, name: str) -> dict[str, Tensor]:
    """Train to the end in this process; the weights."""
    pretrain(study, find_cell(study, name))
    return load_file(paths.checkpoint(name) / "model.safetensors")


def uninterrupted(study: Study, name: str) -> dict[str, Tensor]:
    """The weights of a run in one go, whose folder is then put aside."""
    weights = finish(study, name)
    paths.checkpoint(name).rename("aside")
    return weights


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def losses(path: Path) -> list[tuple[str, str, str]]:
    return [(row["step"], row["train_loss"], row["validation_loss"]) for row in read_rows(path)]


WSD = ("learning_rate: 0.01", "learning_rate: 0.01\n  optimizer: muon\n  schedule: wsd")
LLAMA = ("width: 32}", "width: 32, layer: {kind: llama, query_key_norm: true}, tied: true}")
BEFORE = """base:
    embedder: {kind: lookup, overlap: true, convolution: 3}
    token_decoder: {kind: prefix, local: 5, contexts: 2}"""


@pytest.mark.parametrize(
    ("name", "edits"),
    [
        (VANILLA, [LLAMA]),
        (BLOCK, [WSD, ("base: {}", BEFORE)]),
        pytest.param(VANILLA, [], marks=pytest.mark.slow),
        pytest.param(BLOCK, [], marks=pytest.mark.slow),
        pytest.param(BLOCK, [LLAMA, ("base: {}", BEFORE.replace("local: 5", "local: 2, mix: true"))],
                     marks=pytest.mark.slow),
    ],
    ids=["llama", "block-before-muon", "vanilla", "block", "block-mixed-llama"],
)  # fmt: skip
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tiny: Study, name: str, edits: list[tuple[str, str]]
) -> None:
    text = Path("params.yaml").read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    Path("params.yaml").write_text(text)
    tiny = load_study()
    expected = uninterrupted(tiny, name)
    resumed_at = []
    for step in (6, 14):
        training = Training(name, pause=0.2)
        training.wait_for_step(step)
        wait_for_checkpoint(tiny, name, training)
        training.kill()
        resumed_at.append(resume_step(tiny, name))
    assert 0 < resumed_at[0] < resumed_at[1] < 20
    assert_equal(finish(tiny, name), expected)
    assert losses(paths.checkpoint(name) / "curve.csv") == losses(Path("aside/curve.csv"))
    assert not (paths.checkpoint(name) / "resume").exists()


def wait_for_checkpoint(study: Study, name: str, training: Training) -> None:
    """Checkpoints are written beside training, so the first may come some steps later."""
    path = Job.of(study, find_cell(study, name)).resume_path
    while not path.exists() and training.process.is_alive():
        time.sleep(0.01)


def resume_step(study: Study, name: str) -> int:
    path = Job.of(study, find_cell(study, name)).resume_path
    return int(torch.load(path, weights_only=True)["global_step"])


def test_ctrl_c_saves_the_state_and_says_so_in_one_line(tiny: Study) -> None:
    tiny = changed(tiny, {"hardware.checkpoint_every": 1000})
    expected = uninterrupted(tiny, VANILLA)
    Path("params.yaml").write_text(
        Path("params.yaml").read_text().replace("checkpoint_every: 4", "checkpoint_every: 1000")
    )
    training = Training(VANILLA, pause=0.1, errors=Path("errors"))
    training.wait_for_step(2)
    assert training.process.pid is not None
    os.kill(training.process.pid, signal.SIGINT)
    training.process.join(60)
    assert training.process.exitcode == 130
    assert Path("errors").read_text().splitlines() == [
        f"{VANILLA} stopped at step {resume_step(tiny, VANILLA)} of 20; run it again to go on"
    ]
    assert_equal(finish(tiny, VANILLA), expected)


def test_sigterm_saves_the_state_too(tiny: Study) -> None:
    tiny = changed(tiny, {"hardware.checkpoint_every": 1000})
    expected = uninterrupted(tiny, VANILLA)
    Path("params.yaml").write_text(
        Path("params.yaml").read_text().replace("checkpoint_every: 4", "checkpoint_every: 1000")
    )
    training = Training(VANILLA, pause=0.1)
    training.wait_for_step(6)
    training.process.terminate()
    training.process.join(30)
    assert 6 <= resume_step(tiny, VANILLA) <= 10
    assert_equal(finish(tiny, VANILLA), expected)


def test_state_that_was_cut_short_is_not_continued(tiny: Study) -> None:
    expected = uninterrupted(tiny, VANILLA)
    training = Training(VANILLA, pause=0.1)
    training.wait_for_step(10)
    training.kill()
    path = Job.of(tiny, find_cell(tiny, VANILLA)).resume_path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (path.parent / f".{path.name}.x1").write_bytes(whole[:100])
    assert_equal(finish(tiny, VANILLA), expected)


def test_state_of_other_parameters_is_not_continued(tiny: Study) -> None:
    training = Training(VANILLA, pause=0.1)
    training.wait_for_step(10)
    training.kill()
    tiny = changed(tiny, {"pretrain.learning_rate": tiny.pretrain.learning_rate / 2})
    expected = finish(tiny, VANILLA)
    (paths.checkpoint(VANILLA) / "result.json").unlink()
    assert_equal(finish(tiny, VANILLA), expected)


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tiny: Study) -> None:
    """Also while a checkpoint is being written: one is written at every step."""
    draw = random.Random(0)
    text = Path("params.yaml").read_text().replace("checkpoint_every: 4", "checkpoint_every: 1")
    Path("params.yaml").write_text(text.replace("tokens: 5120", "tokens: 102400"))
    study = load_study()
    expected = uninterrupted(study, BLOCK)
    for _ in range(20):
        training = Training(BLOCK, pause=0.005)
        training.wait_for_step(1)
        time.sleep(draw.uniform(0, 0.2))
        training.kill()
    assert_equal(finish(study, BLOCK), expected)
