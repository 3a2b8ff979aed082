"""Optimizers, schedules and initial weights as a study names them: what planning must know of them, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.study.schema import Pretrain

SCHEDULES = ("cosine", "wsd")
COOLDOWN_SHAPES = ("linear", "sqrt")
COOLDOWN, COOLDOWN_SHAPE = 0.2, "sqrt"
WSD_KEYS = ("cooldown", "cooldown_shape")


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


def warmup_steps(pretrain: Pretrain, steps: int) -> int:
    """Steps of the warm-up: as many as are given, or a share of ``steps``, which a number with a point is."""
    given = pretrain.warmup_steps
    return given if isinstance(given, int) else round(given * steps)


def cooldown_steps(pretrain: Pretrain, steps: int) -> int:
    """Steps of the descent that ends a run of ``steps``: all after the warm-up (cosine), or ``cooldown`` of them."""
    if pretrain.schedule == "cosine":
        return steps - warmup_steps(pretrain, steps)
    share = COOLDOWN if pretrain.cooldown is None else pretrain.cooldown
    return max(round(share * steps), 1)


def idle_keys(pretrain: Pretrain) -> dict[str, str]:
    """Keys that this recipe does not read, and which of its choices says so."""
    idle = {key: f"optimizer {pretrain.optimizer}" for kind in OPTIMIZERS.values() for key in kind.keys}
    if pretrain.schedule == "cosine":
        idle |= dict.fromkeys(WSD_KEYS, "schedule cosine")
    return {key: reader for key, reader in idle.items() if key not in OPTIMIZERS[pretrain.optimizer].keys}
