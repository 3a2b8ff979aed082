"""Muon on the matrices of the layers, AdamW on everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.optim.adamw import adamw

from pipeline.base.errors import UserError
from pipeline.study.recipe import matrix_learning_rate
from pipeline.study.schema import Pretrain
from pipeline.training.optimizers.groups import decay_groups, layer_matrices

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = 3.4445, -4.7750, 2.0315
SMALLEST_NORM = 1e-7
AT_ONCE = 2**27
"""Entries of the matrices that are iterated on together: a few times as many bytes are needed for it."""


def build(model: nn.Module, pretrain: Pretrain) -> Muon:
    """Raises :class:`UserError` for a model whose layers have no matrices."""
    matrices = layer_matrices(model)
    if not matrices:
        raise UserError("pretrain.optimizer: 'muon' is wrong for a model whose layers have no matrices; take 'adamw'")
    rate = matrix_learning_rate(pretrain)
    orthogonal = {"params": matrices, "weight_decay": pretrain.weight_decay, "lr": rate, "orthogonal": True}
    momentum = MOMENTUM if pretrain.matrix_momentum is None else pretrain.matrix_momentum
    others = decay_groups(model, pretrain, without=matrices)
    return Muon([orthogonal, *others], pretrain.learning_rate, pretrain.betas, momentum)


class Muon(torch.optim.Optimizer):
    """Groups marked ``orthogonal`` take orthogonal steps, the others those of fused AdamW.

    An orthogonal step is the momentum, in Nesterov's form, with its singular values brought near 1, times
    0.2 sqrt(longer side), so that its entries are as large as AdamW's; the decay is decoupled (Jordan et al., 2024;
    arXiv 2502.16982). ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"`` does the same, one matrix at a time.
    ``arithmetic`` is the dtype of the iterations; ``None``: bf16 where the device has it, else fp32.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        betas: list[float],
        momentum: float = MOMENTUM,
        arithmetic: torch.dtype | None = None,
    ) -> None:
        # By `fused`, torch keeps AdamW's step counts on the parameters' device when it loads a state.
        defaults = {"lr": lr, "weight_decay": 0.0, "betas": tuple(betas), "momentum": momentum, "fused": True}
        super().__init__(groups, defaults | {"orthogonal": False})
        self.arithmetic = arithmetic

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not group["orthogonal"]:
                self._adamw(parameters, group)
                continue
            for alike in _alike(parameters):
                self._orthogonal(alike, group)
        return loss

    def _orthogonal(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One step of matrices of one shape."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        first, momentum = parameters[0], group["momentum"]
        weights = [_local(parameter) for parameter in parameters]
        gradients = [_local(gradient) for gradient in _gradients(parameters)]
        averages = [_local(self.state[parameter]["momentum"]) for parameter in parameters]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        arithmetic = self.arithmetic or _arithmetic(first.device)
        ahead = torch.empty(len(weights), *weights[0].shape, dtype=arithmetic, device=first.device)
        torch._foreach_copy_(ahead.unbind(), torch._foreach_lerp(gradients, averages, momentum))
        directions = _own_rows(orthogonalize(_gather(ahead, first)), first)
        directions = directions.to(weights[0].dtype, memory_format=torch.contiguous_format)
        rate = group["lr"]
        torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
        torch._foreach_add_(weights, directions.unbind(), alpha=-rate * 0.2 * max(first.shape) ** 0.5)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                steps = torch.zeros((), dtype=torch.float32, device=parameter.device)
                self.state[parameter].update(moments, step=steps)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            [_local(parameter) for parameter in parameters],
            [_local(gradient) for gradient in _gradients(parameters)],
            [_local(state["exp_avg"]) for state in states],
            [_local(state["exp_avg_sq"]) for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def orthogonalize(matrices: Tensor) -> Tensor:
    """Matrices [M, rows, columns] with their singular values brought near 1 (about 0.7 to 1.2), all at once.

    Newton-Schulz iterations in the dtype of ``matrices``: X <- a X + b (X X^T) X + c (X X^T)^2 X, on the shorter side.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _alike(parameters: list[Tensor]) -> list[list[Tensor]]:
    """The parameters by shape, at most :data:`AT_ONCE` entries together."""
    by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        by_shape[parameter.shape].append(parameter)
    together = []
    for shape, alike in by_shape.items():
        count = max(AT_ONCE // shape.numel(), 1)
        together += [alike[start : start + count] for start in range(0, len(alike), count)]
    return together


def _arithmetic(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(False) else torch.float32


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _local(tensor: Tensor) -> Tensor:
    """What this process holds of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _gather(rows: Tensor, parameter: Tensor) -> Tensor:
    """Whole matrices [M, rows, columns] from every process's ``rows`` of them, in one exchange."""
    if not isinstance(parameter, DTensor):
        return rows
    shape = torch.Size((len(rows), *parameter.shape))
    stride = (shape[1] * shape[2], shape[2], 1)
    placed = DTensor.from_local(rows, parameter.device_mesh, _stacked(parameter), shape=shape, stride=stride)
    return placed.full_tensor()


def _own_rows(whole: Tensor, parameter: Tensor) -> Tensor:
    """This process's share of ``whole`` matrices: the inverse of :func:`_gather`."""
    if not isinstance(parameter, DTensor):
        return whole
    everywhere = DTensor.from_local(whole, parameter.device_mesh, [Replicate()] * parameter.device_mesh.ndim)
    return everywhere.redistribute(placements=_stacked(parameter)).to_local()


def _stacked(parameter: DTensor) -> list[Any]:
    """The parameter's placements, with another dimension before its own."""
    return [Shard(place.dim + 1) if isinstance(place, Shard) else place for place in parameter.placements]
