"""Optimizers: one module each, called as ``pretrain.optimizer`` names it and listed in pipeline/study/recipe.py."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

from pipeline.study.schema import Pretrain


def build_optimizer(model: nn.Module, pretrain: Pretrain) -> torch.optim.Optimizer:
    """The optimizer that ``pretrain`` names, over all parameters of ``model``.

    Each parameter group begins with its peak as ``lr``; training sets the rate of every step (:class:`Schedule`).
    Raises :class:`UserError` where the model has nothing for it.
    """
    optimizer: torch.optim.Optimizer = import_module(f"{__name__}.{pretrain.optimizer}").build(model, pretrain)
    return optimizer
