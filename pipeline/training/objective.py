"""What training minimizes: the model and its loss as one module, so that whatever wraps it wraps both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models import LanguageModel
from pipeline.training.loss import IGNORE, vocabulary_loss


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
