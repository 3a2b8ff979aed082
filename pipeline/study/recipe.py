"""Optimizers, schedules and initial weights as a study names them: what planning must know of them, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.study.rules import all_positive, choice, positive, require
from pipeline.study.schema import Pretrain

SCHEDULES = ("cosine", "wsd")
COOLDOWN_SHAPES = ("linear", "sqrt")
COOLDOWN, COOLDOWN_SHAPE = 0.2, "sqrt"


@dataclass(frozen=True)
class Optimizer:
    """An optimizer: a module of its name in pipeline/training/optimizers/.

    ``matrix_moments`` and ``other_moments`` are the fp32 numbers that it keeps for each entry of the layers' matrices
    and for each other parameter; ``keys`` those of ``pretrain`` that no optimizer reads unless it names them here.
    """

    matrix_moments: int
    other_moments: int
    keys: tuple[str, ...] = ()


OPTIMIZERS = {
    "adamw": Optimizer(2, 2),
    "muon": Optimizer(1, 2, keys=("matrix_learning_rate", "matrix_momentum")),
}


def matrix_learning_rate(pretrain: Pretrain) -> float | None:
    """Peak of the layers' matrices; ``None`` where the optimizer has one rate for all parameters."""
    if "matrix_learning_rate" not in OPTIMIZERS[pretrain.optimizer].keys:
        return None
    return pretrain.learning_rate if pretrain.matrix_learning_rate is None else pretrain.matrix_learning_rate


def cooldown_steps(pretrain: Pretrain, steps: int) -> int:
    """Steps of the descent that ends a run of ``steps``: all after the warm-up (cosine), or ``cooldown`` of them."""
    if pretrain.schedule == "cosine":
        return steps - pretrain.warmup_steps
    share = COOLDOWN if pretrain.cooldown is None else pretrain.cooldown
    return max(round(share * steps), 1)


def check_recipe(pretrain: Pretrain) -> None:
    """Raise :class:`UserError` for an optimizer, schedule or initialization that makes no sense."""
    choice("pretrain.optimizer", pretrain.optimizer, OPTIMIZERS)
    choice("pretrain.schedule", pretrain.schedule, SCHEDULES)
    for key, reader in _idle_keys(pretrain).items():
        right = f"it has no effect with {reader}; leave it out"
        require(getattr(pretrain, key) is None, f"pretrain.{key}", getattr(pretrain, key), right)
    positive("pretrain.matrix_learning_rate", pretrain.matrix_learning_rate)
    momentum, share = pretrain.matrix_momentum, pretrain.cooldown
    require(momentum is None or 0 <= momentum < 1, "pretrain.matrix_momentum", momentum, "it is from 0 to below 1")
    right = "it is a share of the steps, above 0 and at most 1"
    require(share is None or 0 < share <= 1, "pretrain.cooldown", share, right)
    if pretrain.cooldown_shape is not None:
        choice("pretrain.cooldown_shape", pretrain.cooldown_shape, COOLDOWN_SHAPES)
    all_positive("pretrain.initialization", pretrain.initialization, ("std",))


def _idle_keys(pretrain: Pretrain) -> dict[str, str]:
    """Keys that this recipe does not read, and which of its choices says so."""
    idle = {key: f"optimizer {pretrain.optimizer}" for each in OPTIMIZERS.values() for key in each.keys}
    if pretrain.schedule == "cosine":
        idle |= dict.fromkeys(("cooldown", "cooldown_shape"), "schedule cosine")
    return {key: reader for key, reader in idle.items() if key not in OPTIMIZERS[pretrain.optimizer].keys}


def check_schedule(pretrain: Pretrain, steps: int, run: str) -> None:
    """Raise :class:`UserError` where warm-up and cooldown do not fit into the ``steps`` of ``run``, such as a cell."""
    warmup, cooldown = pretrain.warmup_steps, cooldown_steps(pretrain, steps)
    of_run = f"the {steps} steps of {run} (tokens / (batch_size * context_length))"
    require(warmup < steps, "pretrain.warmup_steps", warmup, f"it must be less than {of_run}")
    right = f"with a cooldown of {cooldown} steps (pretrain.cooldown) it is more than {of_run}; shorten one of them"
    require(warmup + cooldown <= steps, "pretrain.warmup_steps", warmup, right)
