"""What training minimizes: the model and its loss as one module, so that whatever wraps it wraps both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models import LanguageModel

IGNORE = -100
CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**29}


def vocabulary_loss(hidden_MD: Tensor, weight_VD: Tensor, targets: Tensor, rows: int | None = None) -> Tensor:
    """Loss in nats of each of the M ``targets``, fp32 in their shape; 0 where the target is ``IGNORE``.

    ``hidden_MD @ weight_VD.T`` are the logits, ``rows`` of them at a time. Where gradients are needed they are made in
    the same pass, since the gradient of a sum of losses is known up to a factor: only ``losses.sum()``, times any
    factor, may be differentiated. Under autocast the products are taken in its dtype, everything else in fp32.
    """
    device = hidden_MD.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_MD.dtype
    rows = rows or max(CHUNK_BYTES.get(device, 2**24) // (4 * len(weight_VD)), 128)
    differentiate = torch.is_grad_enabled() and (hidden_MD.requires_grad or weight_VD.requires_grad)
    losses: Tensor = _VocabularyLoss.apply(  # type: ignore[no-untyped-call]
        hidden_MD, weight_VD, targets, rows, compute, differentiate
    )
    return losses


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        targets: Tensor,
        rows: int,
        compute: torch.dtype,
        differentiate: bool,
    ) -> Tensor:
        device = hidden_MD.device
        losses = torch.empty(targets.shape, dtype=torch.float32, device=device)
        losses_M, targets_M = losses.view(-1), targets.flatten()
        with torch.autocast(device.type, enabled=False):
            weight = weight_VD.to(compute)
            grad_hidden = torch.empty_like(hidden_MD) if differentiate else None
            grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if differentiate else None
            for start in range(0, len(targets_M), rows):
                chunk = slice(start, start + rows)
                hidden = hidden_MD[chunk].to(compute)
                wanted = targets_M[chunk]
                choose = fused_softmax if hidden.is_cuda else softmax
                losses_M[chunk], grad_logits = choose(_product(hidden, weight.t()), wanted, compute)
                if grad_hidden is None or grad_weight is None:
                    continue
                grad_hidden[chunk] = grad_logits @ weight
                _add_product(grad_weight, grad_logits.t(), hidden)
        if differentiate:
            ctx.save_for_backward(grad_hidden, grad_weight)
            ctx.weight_dtype = weight_VD.dtype
        return losses

    @staticmethod
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        factor = grad_losses[(0,) * grad_losses.ndim]
        return grad_hidden * factor.to(grad_hidden.dtype), (grad_weight * factor).to(ctx.weight_dtype), *[None] * 4


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in fp32: half-precision products are accumulated and returned so on CUDA."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif a.is_cuda:
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.add_(a @ b)


def softmax(logits: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Losses [M] of ``targets`` under fp32 ``logits`` [M, V], which are lost, and their sum's gradient in ``dtype``."""
    log_probabilities = F.log_softmax(logits, dim=-1)
    losses = F.nll_loss(log_probabilities, targets, ignore_index=IGNORE, reduction="none")
    gradient = log_probabilities.exp_()
    index = targets.clamp(min=0).unsqueeze(1)
    gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=gradient.dtype))
    return losses, gradient.mul_((targets != IGNORE).unsqueeze(1)).to(dtype)


def fused_softmax(logits: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """:func:`softmax` as one kernel, which reads the logits from memory once."""
    from pipeline.training.kernels import softmax_kernel

    rows, vocabulary = logits.shape
    losses, gradient = logits.new_empty(rows), logits.new_empty(rows, vocabulary, dtype=dtype)
    softmax_kernel[(rows,)](logits, targets, losses, gradient, V=vocabulary, IGNORE=IGNORE, BLOCK=4096, num_warps=8)
    return losses, gradient


class Objective(nn.Module):
    """Losses of a model's targets: the valid positions from ``model.stride`` on.

    ``precision`` is ``fp32``, or ``bf16`` for products in bfloat16 with weights, norms, residuals and loss in fp32.
    """

    def __init__(self, model: LanguageModel, precision: str = "fp32") -> None:
        super().__init__()
        self.model = model
        self.precision = precision

    def forward(self, tokens: Tensor, valid: Tensor | None, padded_blocks: bool = False) -> Tensor:
        """Loss in nats, fp32 [B, T - stride], 0 at padding; only its sum, times any factor, may be differentiated.

        ``tokens`` and ``valid`` are [B, T]; ``padded_blocks`` as :meth:`LanguageModel.forward` has it.
        """
        targets = tokens[:, self.model.stride :]
        if valid is not None:
            targets = targets.masked_fill(~valid[:, self.model.stride :], IGNORE)
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            hidden = self.model.hidden(tokens, valid, padded_blocks=padded_blocks)
            return vocabulary_loss(hidden.flatten(0, 1), self.model.head_weight, targets)


@torch.no_grad()
def validation_sums(objective: Objective, windows: Tensor, micro_batch: int) -> Tensor:
    """Summed loss and number of targets, fp64 [2], over ``windows`` [W, T] of unpadded text.

    Every token of a window but the first is a target, in both families: a block model gets L - 1 pads on the left. Rows
    that are negative stand for nothing; they keep processes of a group in step.
    """
    pads = objective.model.stride - 1
    sums = torch.zeros(2, dtype=torch.float64, device=windows.device)
    for rows in windows.split(micro_batch):
        real = rows >= 0
        tokens = nn.functional.pad(rows.clamp(min=0), (pads, 0))
        valid = nn.functional.pad(real, (pads, 0)) if pads else None
        # Compiling for these shapes would cost more than it gains.
        with torch.compiler.set_stance("force_eager"):
            losses = objective(tokens, valid) * real[:, 1:]
        sums += torch.stack([losses.sum(dtype=torch.float64), real[:, 1:].sum(dtype=torch.float64)])
    return sums
