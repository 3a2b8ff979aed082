"""Which parameters are matrices of layers, and which decay."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import Parameter

from pipeline.study.recipe import OPTIMIZERS
from pipeline.study.schema import Pretrain
from pipeline.training.wrapping import layers


def layer_matrices(model: nn.Module) -> list[Tensor]:
    """Weights [outputs, inputs] of the linear maps of every layer: the maps between embedder and decoders are none."""
    linears = (module for layer in layers(model) for module in layer.modules() if isinstance(module, nn.Linear))
    return [linear.weight for linear in linears]


def decay_groups(model: nn.Module, pretrain: Pretrain, without: list[Tensor] | None = None) -> list[dict[str, Any]]:
    """Parameters that decay and those that don't, in a fixed order; those of ``without`` are left out.

    Matrices of linear maps decay; biases, norms and embedding tables do not, unless ``decay_all`` (the published runs).
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    left_out = {id(parameter) for parameter in without or []}
    decayed: list[Parameter] = []
    kept: list[Parameter] = []
    for parameter in model.parameters():
        if id(parameter) not in left_out:
            matrix = parameter.ndim >= 2 and id(parameter) not in tables
            (decayed if pretrain.decay_all or matrix else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": pretrain.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def moments(model: nn.Module, optimizer: str) -> list[tuple[Parameter, int]]:
    """Every trained parameter, and how many fp32 numbers the optimizer will keep for each of its entries."""
    kept, matrices = OPTIMIZERS[optimizer], {id(parameter) for parameter in layer_matrices(model)}
    return [
        (parameter, kept.matrix_moments if id(parameter) in matrices else kept.other_moments)
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
