"""What is done to a model's layers and gradients for memory and speed; none of it changes more than rounding."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from pipeline.base.ranks import is_main_process
from pipeline.training.job import say
from pipeline.training.objective import Objective

AT_ONCE = 2**26
"""Entries of the gradients that processes exchange together, at least."""

WHOLE = 2**29
"""Parameters of a model that fsdp gathers in one piece, at most: 2 GB, and as much of gradients for a moment."""


def layers(model: nn.Module) -> Iterator[nn.Module]:
    """Every layer of every stack."""
    for stack in model.modules():
        if isinstance(stack, nn.ModuleList):
            yield from stack


def recompute_activations(objective: Objective) -> None:
    """Keep only the layers' inputs for the backward pass, which computes the rest again."""
    for layer in layers(objective):
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


class Compiler:
    """torch.compile, until it fails: from then on all that it compiled runs as it was written.

    Backward graphs are compiled with their forward graphs, so that nothing of a failed pass has to be undone. Processes
    need not agree: what is compiled holds no exchange between them. ``name`` is of what is trained, for the warning.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.failed = False

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile ``function`` when it first runs, anew for other shapes."""
        import torch._functorch.config as functorch_config
        from torch._dynamo.exc import TorchDynamoException

        functorch_config.force_non_lazy_backward_lowering = True
        compiled = torch.compile(function, dynamic=False)

        def run(*arguments: Any, **named: Any) -> Any:
            if not self.failed:
                try:
                    return compiled(*arguments, **named)
                except TorchDynamoException as error:
                    self._fail(error)
            return function(*arguments, **named)

        return run

    def _fail(self, error: Exception) -> None:
        self.failed = True
        cause = getattr(error, "inner_exception", error)
        said = str(cause).strip().partition("\n")[0]
        if is_main_process():
            say(
                f"{self.name}: torch.compile failed ({type(cause).__name__}: {said}); it runs uncompiled, which "
                "is slower; with hardware.compile: false compiling is not tried"
            )


def compile_layers(objective: Objective, compiler: Compiler) -> None:
    """Compile each layer."""
    for layer in layers(objective):
        layer.forward = compiler(layer.forward)


def compile_whole(objective: Objective, compiler: Compiler) -> None:
    """Compile all but the head and its loss, whose products are large already."""
    objective.model.hidden = compiler(objective.model.hidden)  # type: ignore[method-assign]


def in_pieces(objective: Objective) -> bool:
    """Whether fsdp gathers the model layer by layer; a smaller one is compiled and gathered as a whole."""
    return sum(weight.numel() for weight in objective.parameters()) > WHOLE


def shard(objective: Objective, mesh: DeviceMesh) -> None:
    """Fully sharded data parallelism (FSDP2): in one piece, or every layer on its own and what is left together.

    Weights are gathered in fp32. In bf16 they would make the embeddings, and so the residuals, bf16 too.
    """
    if isinstance(objective, FSDPModule):
        return
    for layer in layers(objective) if in_pieces(objective) else ():
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def clip_gradients(weights: Iterable[Tensor], most: float) -> Tensor:
    """Scale all gradients so that their common norm is at most ``most``; returns the norm before, a scalar.

    As ``torch.nn.utils.clip_grad_norm_``, which sends a message per tensor where gradients are sharded; here it is one.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    own = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    norm = torch.nn.utils.get_total_norm(own)
    if isinstance(gradients[0], DTensor):
        squares = norm.square()
        all_reduce(squares)
        norm = squares.sqrt()
    torch._foreach_mul_(own, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def sum_over_processes(gradients: list[Tensor]) -> None:
    """Make each gradient its sum over all processes, in few exchanges that run while the next is put together."""
    under_way = []
    for together in _together(gradients):
        flat = torch.cat([gradient.flatten() for gradient in together])
        under_way.append((together, flat, all_reduce(flat, async_op=True)))
    for together, flat, exchange in under_way:
        exchange.wait()
        sums = flat.split([gradient.numel() for gradient in together])
        torch._foreach_copy_(together, [part.view_as(own) for part, own in zip(sums, together, strict=True)])


def _together(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    together: list[Tensor] = []
    for last in gradients:
        together.append(last)
        if sum(gradient.numel() for gradient in together) >= AT_ONCE:
            yield together
            together = []
    if together:
        yield together
