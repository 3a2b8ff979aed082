"""What is done to a model's layers for memory and speed; none of it changes more than rounding."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

from pipeline.training.objective import Objective


def layers(model: nn.Module) -> Iterator[nn.Module]:
    """Every layer of every stack."""
    for stack in model.modules():
        if isinstance(stack, nn.ModuleList):
            yield from stack


def recompute_activations(objective: Objective) -> None:
    """Keep only the layers' inputs for the backward pass, which computes the rest again."""
    for layer in layers(objective):
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def compile_layers(objective: Objective) -> None:
    """Compile each layer when it first runs."""
    for layer in layers(objective):
        layer.compile(dynamic=False)


def compile_whole(objective: Objective) -> None:
    """Compile all but the head and its loss, whose products are large already."""
    objective.model.hidden = torch.compile(objective.model.hidden, dynamic=False)  # type: ignore[method-assign]


def shard(objective: Objective, mesh: DeviceMesh) -> None:
    """Fully sharded data parallelism (FSDP2): every layer on its own, and what is left with the objective."""
    if isinstance(objective, FSDPModule):
        return
    gathered = torch.bfloat16 if objective.precision == "bf16" else None
    policy = MixedPrecisionPolicy(gathered, torch.float32, cast_forward_inputs=False)
    for layer in layers(objective):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
