"""AdamW."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.study.schema import Pretrain
from pipeline.training.optimizers.groups import decay_groups


def build(model: nn.Module, pretrain: Pretrain) -> torch.optim.AdamW:
    """Fused AdamW with fp32 states on all parameters."""
    beta1, beta2 = pretrain.betas
    groups = decay_groups(model, pretrain)
    return torch.optim.AdamW(groups, lr=pretrain.learning_rate, betas=(beta1, beta2), eps=1e-8, fused=True)
