"""The chunked loss against the obvious one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.training.objective import IGNORE, fused_softmax, softmax, vocabulary_loss


def draw(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(50, 16, generator=generator, requires_grad=True)
    weight = torch.randn(70, 16, generator=generator, requires_grad=True)
    targets = torch.randint(70, (50,), generator=generator)
    targets[[0, 13, 49]] = IGNORE
    return hidden, weight, targets


@pytest.mark.parametrize("rows", [1, 7, 50, 64, None])
def test_losses_and_gradients_equal_those_of_all_logits_at_once(rows: int | None) -> None:
    hidden, weight, targets = draw()
    plain = F.cross_entropy(hidden @ weight.t(), targets, ignore_index=IGNORE, reduction="none")
    expected = torch.autograd.grad(0.3 * plain.sum(), (hidden, weight))
    losses = vocabulary_loss(hidden, weight, targets, rows)
    found = torch.autograd.grad(0.3 * losses.sum(), (hidden, weight))
    torch.testing.assert_close(losses, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_extreme_logits_stay_finite() -> None:
    hidden, weight, targets = draw()
    losses = vocabulary_loss(hidden * 1e3, weight, targets, 8)
    assert torch.isfinite(losses).all()
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(losses.sum(), (hidden, weight)))


def test_a_frozen_head_or_no_gradients_at_all() -> None:
    hidden, weight, targets = draw()
    with torch.no_grad():
        assert not vocabulary_loss(hidden, weight, targets).requires_grad
    losses = vocabulary_loss(hidden, weight.detach(), targets)
    plain = F.cross_entropy(hidden @ weight.t(), targets, ignore_index=IGNORE, reduction="none")
    found, expected = (torch.autograd.grad(each.sum(), hidden)[0] for each in (losses, plain))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_autocast_rounds_products_and_nothing_else() -> None:
    hidden, weight, targets = draw()
    exact = vocabulary_loss(hidden, weight, targets, 8)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = vocabulary_loss(hidden, weight, targets, 8)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.1, rtol=0.02)
    assert not torch.equal(rounded, exact)


@pytest.mark.gpu
@pytest.mark.parametrize("vocabulary", [70, 8192, 50304])
def test_the_fused_kernel_equals_the_plain_softmax(vocabulary: int) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    logits = 5 * torch.randn(9, vocabulary, device="cuda", generator=generator)
    logits[3] *= 1e4
    targets = torch.randint(vocabulary, (9,), device="cuda", generator=generator)
    targets[[2, 8]] = IGNORE
    found = fused_softmax(logits, targets, torch.float32)
    torch.testing.assert_close(found, softmax(logits.double(), targets, torch.float32), check_dtype=False)


@pytest.mark.gpu
def test_bf16_products_on_a_gpu_keep_the_loss_in_fp32() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(700, 64, device="cuda", generator=generator).bfloat16().requires_grad_()
    weight = (torch.randn(5000, 64, device="cuda", generator=generator) / 8).requires_grad_()
    targets = torch.randint(5000, (700,), device="cuda", generator=generator)
    with torch.autocast("cuda", torch.bfloat16):
        losses = vocabulary_loss(hidden, weight, targets, 128)
    found = torch.autograd.grad(losses.sum(), (hidden, weight))
    exact = [tensor.detach().bfloat16().double().requires_grad_() for tensor in (hidden, weight)]
    plain = F.cross_entropy(exact[0] @ exact[1].t(), targets, reduction="none")
    expected = torch.autograd.grad(plain.sum(), exact)
    torch.testing.assert_close(losses.double(), plain, atol=1e-5, rtol=1e-5)
    for mine, reference in zip(found, expected, strict=True):
        assert (mine.double() - reference).norm() < 5e-3 * reference.norm()
