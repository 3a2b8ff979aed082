"""Fully sharded data parallelism (FSDP2)."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from pipeline.training.objective import Objective


def shard(objective: Objective, mesh: DeviceMesh) -> None:
    """Shard every layer of every stack on its own, and what is left with the objective. Once is enough."""
    if isinstance(objective, FSDPModule):
        return
    gathered = torch.bfloat16 if objective.precision == "bf16" else None
    policy = MixedPrecisionPolicy(gathered, torch.float32, cast_forward_inputs=False)
    for stack in objective.modules():
        if isinstance(stack, nn.ModuleList):
            for layer in stack:
                fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
