"""Training against a slow and obvious loop, and the options that must not change it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.data import Batches, PackedStream, TokenCorpus
from pipeline.models import LanguageModel, build, initialise
from pipeline.study import Study, find_cell, load_study
from pipeline.training import pretrain
from pipeline.training.curve import read_rows
from pipeline.training.hardware import out_of_memory
from pipeline.training.job import Job
from pipeline.training.objective import CHUNK_BYTES, Objective
from pipeline.training.validation import held_out_sums
from pipeline.training.wrapping import recompute_activations
from tests.changed import changed

CELLS = ("vanilla-s-0", "block-s-4-base-0")


def curve(study: Study, name: str) -> list[float]:
    study = changed(study, {"hardware.log_every": 1})
    pretrain(study, find_cell(study, name))
    return [float(row["train_loss"]) for row in read_rows(paths.checkpoint(name) / "curve.csv")]


def plain_losses(job: Job, steps: int) -> list[float]:
    """All logits at once, no cleverness."""
    model = build(job.config)
    initialise(model, job.cell.seed)
    stream = PackedStream(
        TokenCorpus.open(paths.TOKENS, "train"),
        job.pretrain.context_length,
        job.config.stride if job.padding else None,
        job.manifest.end_of_text,
        job.cell.seed,
    )
    batches = Batches(stream, job.pretrain.batch_size, job.cell.seed)
    decays = [p for n, p in model.named_parameters() if p.ndim == 2 and "embedding" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embedding" in n]
    optimizer = torch.optim.AdamW(
        [{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    losses = []
    for k in range(steps):
        batch = batches.batch(k)
        tokens, valid = torch.from_numpy(batch.tokens), torch.from_numpy(batch.valid)
        logits = model(tokens, valid)
        targets = tokens[:, model.stride :].masked_fill(~valid[:, model.stride :], -100)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad *= min(1.0, 1.0 / float(norm))
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (k + 1) / 4 if k < 4 else 0.01 * (0.55 + 0.45 * math.cos(math.pi * (k - 3) / 16))
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", CELLS)
def test_training_equals_the_obvious_loop(tiny: Study, name: str) -> None:
    expected = plain_losses(Job.of(tiny, find_cell(tiny, name)), steps=12)
    assert curve(tiny, name)[:12] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("name", CELLS)
def test_recomputed_activations_change_nothing(tiny: Study, name: str) -> None:
    tokens = torch.randint(300, (2, 32), generator=torch.Generator().manual_seed(0))
    gradients = []
    for recompute in (False, True):
        objective = Objective(build(Job.of(tiny, find_cell(tiny, name)).config))
        if recompute:
            recompute_activations(objective)
        objective(tokens, None).sum().backward()
        gradients.append([parameter.grad for parameter in objective.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)


def test_losses_by_position_average_to_the_loss(tiny: Study) -> None:
    curve(tiny, "block-s-4-base-0")
    for row in read_rows(paths.checkpoint("block-s-4-base-0") / "curve.csv"):
        by_position = [float(row[f"loss_{position}"]) for position in range(1, 5)]
        assert sum(by_position) / 4 == pytest.approx(float(row["train_loss"]), abs=0.02)


def validation_loss(model: LanguageModel, windows: torch.Tensor, pads: int, first: int) -> float:
    """Summed loss of the tokens from ``first`` on of ``windows`` [W, T] behind ``pads`` pads, by plain torch."""
    valid = F.pad(torch.ones_like(windows, dtype=torch.bool), (pads, 0))
    logits = model(F.pad(windows, (pads, 0)), valid)
    return F.cross_entropy(logits.flatten(0, 1), windows[:, first:].flatten(), reduction="sum").item()


@pytest.mark.parametrize("padding", [True, False])
def test_both_families_validate_on_the_same_targets_as_they_were_trained(tiny: Study, padding: bool) -> None:
    """Without padding in training, pads stand before what no block precedes alone."""
    windows = torch.randint(300, (5, 32), generator=torch.Generator().manual_seed(0))
    unfilled = torch.cat([windows, torch.full((1, 32), -1)])
    for name in CELLS:
        model = build(Job.of(tiny, find_cell(tiny, name)).config).eval()
        loss, targets = held_out_sums(Objective(model), unfilled, 2, padding).tolist()
        assert targets == 5 * 31
        length = model.stride
        plain = validation_loss(model, windows, length - 1, 1)
        if not padding and length > 1:
            start = validation_loss(model, windows[:, :length], length - 1, 1)
            apart = start + validation_loss(model, windows, 0, length)
            assert apart != pytest.approx(plain, rel=1e-4)
            plain = apart
        assert loss == pytest.approx(plain, rel=1e-5)


VARIANTS = {
    "projection": {"embedder": {"kind": "projection"}, "token_decoder": {"kind": "summation"}},
    "roberta": {"embedder": {"kind": "roberta", "width": 32, "layers": 1}},
    "cross": {"embedder": {"kind": "cls", "width": 32, "layers": 1}, "token_decoder": {"kind": "cross_attention"}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_the_plain_loss_and_trains_all_its_parameters(tiny: Study, variant: str) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("base: {}", f"base: {VARIANTS[variant]}"))
    model = build(Job.of(load_study(), find_cell(tiny, "block-s-4-base-0")).config).eval()
    tokens = torch.randint(300, (2, 32), generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(tokens, dtype=torch.bool)
    valid[:, :2] = False
    losses = Objective(model)(tokens, valid)
    plain = F.cross_entropy(model(tokens, valid).flatten(0, 1), tokens[:, 4:].flatten(), reduction="none")
    torch.testing.assert_close(losses.flatten(), plain, atol=1e-5, rtol=1e-5)
    losses.sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_out_of_memory_names_the_keys_that_help() -> None:
    assert isinstance(out_of_memory(8), UserError)
    for key in ("hardware.micro_batch_size below 8", "hardware.activation_checkpointing", "hardware.strategy: fsdp"):
        assert key in str(out_of_memory(8))


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_compiling_changes_only_rounding(tiny: Study, name: str) -> None:
    """Needs a C++ compiler."""
    expected = curve(tiny, name)
    paths.checkpoint(name).rename("aside")
    tiny = changed(tiny, {"hardware.compile": True})
    assert curve(tiny, name) == pytest.approx(expected, abs=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 3e-3)])
def test_on_a_gpu_only_rounding_changes(
    tiny: Study, monkeypatch: pytest.MonkeyPatch, name: str, precision: str, tolerance: float
) -> None:
    """Neither compiling, nor micro-batches, nor the loss's chunks. A high learning rate would make rounding grow."""
    tiny = changed(
        tiny, {"hardware.accelerator": "gpu", "pretrain.precision": precision, "pretrain.learning_rate": 3e-4}
    )
    curves = []
    for compiled, micro_batch, chunk in ((False, None, 2**29), (True, None, 2**29), (True, 1, 2**29), (False, None, 1)):
        tiny = changed(tiny, {"hardware.compile": compiled, "hardware.micro_batch_size": micro_batch})
        monkeypatch.setitem(CHUNK_BYTES, "cuda", chunk)
        curves.append(curve(tiny, name))
        shutil.rmtree(paths.checkpoint(name))
    for other in curves[1:]:
        assert other == pytest.approx(curves[0], abs=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CELLS)
def test_bf16_on_a_gpu_follows_fp32_on_a_cpu(tiny: Study, name: str) -> None:
    expected = curve(tiny, name)
    paths.checkpoint(name).rename("aside")
    tiny = changed(tiny, {"hardware.accelerator": "gpu"})
    assert curve(tiny, name) == pytest.approx(expected, abs=0.05)
