"""AdamW and what decays."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

from pipeline.study.schema import Pretrain


def parameter_groups(model: nn.Module, weight_decay: float, decay_all: bool) -> list[dict[str, Any]]:
    """Parameters that decay and those that don't, in a fixed order.

    Matrices of linear maps decay; biases, norms and embedding tables do not, unless ``decay_all`` (the published runs).
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[Parameter] = []
    kept: list[Parameter] = []
    for parameter in model.parameters():
        matrix = parameter.ndim >= 2 and id(parameter) not in tables
        (decayed if decay_all or matrix else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def adamw(model: nn.Module, pretrain: Pretrain) -> torch.optim.AdamW:
    """Fused AdamW with fp32 states; the learning rate is set anew at every step (:class:`Schedule`)."""
    beta1, beta2 = pretrain.betas
    groups = parameter_groups(model, pretrain.weight_decay, pretrain.decay_all)
    return torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2), eps=1e-8, fused=True)
