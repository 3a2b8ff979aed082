"""What pretraining leaves behind, in one process on a CPU."""

from __future__ import annotations

import io
import math
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.base import paths, progress
from pipeline.base.errors import UserError
from pipeline.base.files import read_json
from pipeline.models import checkpoint
from pipeline.results.records import PretrainResult
from pipeline.study import Study, find_cell
from pipeline.training import pretrain
from pipeline.training.curve import Row, read_rows
from tests.changed import changed

CELLS = ("vanilla-s-0", "block-s-4-base-0")


def train(study: Study, name: str) -> PretrainResult:
    result = pretrain(study, find_cell(study, name))
    assert result is not None
    return result


def weights(name: str) -> dict[str, Tensor]:
    return load_file(paths.checkpoint(name) / "model.safetensors")


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_learns_and_leaves_a_whole_checkpoint_folder(tiny: Study, name: str) -> None:
    result = train(tiny, name)
    folder = paths.checkpoint(name)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "curve.csv", "model.safetensors", "result.json", "tokenizer.json",
    ]  # fmt: skip
    rows = read_rows(folder / "curve.csv")
    assert [int(row["step"]) for row in rows] == list(range(2, 21, 2))
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"]) - 1
    assert [row["step"] for row in rows if row["validation_loss"]] == ["10", "20"]
    assert (result.steps, result.tokens) == (20, 5120)
    assert result.validation_loss < math.log(300) - 1
    model, config = checkpoint.load(folder)
    assert config["cell"]["name"] == name
    assert config["fingerprint"] == result.cell.fingerprint
    assert sum(parameter.numel() for parameter in model.parameters()) == result.total_parameters


def test_target_tokens_are_those_the_model_predicts(tiny: Study) -> None:
    assert train(tiny, "vanilla-s-0").target_tokens == 20 * 8 * 31
    block = train(tiny, "block-s-4-base-0").target_tokens
    assert 0.9 * 20 * 8 * 28 < block < 20 * 8 * 28


def test_changed_code_trains_a_finished_cell_anew(tiny: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(tiny, "vanilla-s-0")
    monkeypatch.setattr("pipeline.study.causes.training_code", lambda *_: {"pipeline.models.layers": "changed"})
    again = train(tiny, "vanilla-s-0")
    assert again.seconds != first.seconds
    assert again.train_loss == first.train_loss
    assert train(tiny, "vanilla-s-0") == again


def test_one_seed_gives_equal_weights_and_another_gives_others(tiny: Study) -> None:
    train(tiny, "vanilla-s-0")
    first = weights("vanilla-s-0")
    (paths.checkpoint("vanilla-s-0") / "result.json").unlink()
    train(tiny, "vanilla-s-0")
    assert equal(first, weights("vanilla-s-0"))
    tiny = changed(tiny, {"grid.seed": [1]})
    train(tiny, "vanilla-s-1")
    assert not equal(first, weights("vanilla-s-1"))


def test_a_finished_cell_is_not_trained_again_unless_its_study_changed(
    tiny: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(tiny, "vanilla-s-0")
    assert train(tiny, "vanilla-s-0") == first
    assert "trained already" in capsys.readouterr().err
    tiny = changed(tiny, {"pretrain.learning_rate": tiny.pretrain.learning_rate / 2})
    retrained = train(tiny, "vanilla-s-0")
    assert retrained.cell.fingerprint != first.cell.fingerprint
    assert retrained.train_loss != first.train_loss
    assert read_json(paths.checkpoint("vanilla-s-0") / "config.json")["fingerprint"] == retrained.cell.fingerprint


@pytest.mark.parametrize("name", CELLS)
def test_micro_batches_and_workers_change_only_rounding(tiny: Study, name: str) -> None:
    losses = []
    for micro_batch, workers in ((8, 0), (3, 1), (1, 2)):
        tiny = changed(tiny, {"hardware.micro_batch_size": micro_batch, "hardware.workers": workers})
        train(tiny, name)
        losses.append([float(row["train_loss"]) for row in read_rows(paths.checkpoint(name) / "curve.csv")])
        (paths.checkpoint(name) / "result.json").unlink()
    assert losses[1] == pytest.approx(losses[0], abs=2e-5)
    assert losses[2] == pytest.approx(losses[0], abs=2e-5)


def test_rows_are_reported_as_they_are_written(tiny: Study) -> None:
    rows: list[Row] = []
    pretrain(tiny, find_cell(tiny, "vanilla-s-0"), rows.append)
    written = read_rows(paths.checkpoint("vanilla-s-0") / "curve.csv")
    assert [row.step for row in rows] == [int(row["step"]) for row in written]
    assert rows[-1].learning_rate == pytest.approx(0.1 * tiny.pretrain.learning_rate)


def test_an_exploding_loss_ends_the_cell_with_its_last_good_weights(tiny: Study) -> None:
    tiny = changed(tiny, {"pretrain.learning_rate": 1e6, "hardware.checkpoint_every": 1})
    result = train(tiny, "vanilla-s-0")
    assert result.diverged
    assert result.steps < 20
    assert math.isfinite(result.train_loss)
    assert all(torch.isfinite(weight).all() for weight in weights("vanilla-s-0").values())
    assert train(tiny, "vanilla-s-0") == result


def test_an_error_ends_the_terminals_progress_line(tiny: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.0)

    def fail(row: Row) -> None:
        if row.step == 4:
            raise RuntimeError("CUDA error: unspecified launch failure")

    with pytest.raises(RuntimeError):
        pretrain(tiny, find_cell(tiny, "vanilla-s-0"), fail)
    assert " step 3/20 " in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


def test_a_gpu_that_is_not_there_is_refused(tiny: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tiny = changed(tiny, {"hardware.accelerator": "gpu"})
    with pytest.raises(UserError, match=r"hardware.accelerator: 'gpu'"):
        train(tiny, "vanilla-s-0")


def test_processes_that_cannot_share_a_batch_are_refused(tiny: Study) -> None:
    tiny = changed(tiny, {"hardware.devices": 3})
    with pytest.raises(UserError, match=r"pretrain.batch_size: 8 is wrong for 3 processes"):
        train(tiny, "vanilla-s-0")
