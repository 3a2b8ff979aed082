"""Optimizers, schedules and initial weights as a study names them: what planning must know of them, without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.study.rules import choice, positive, require
from pipeline.study.schema import Pretrain

Named = Callable[[str], str]

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


def cooldown_steps(pretrain: Pretrain, steps: int) -> int:
    """Steps of the descent that ends a run of ``steps``: all after the warm-up (cosine), or ``cooldown`` of them."""
    if pretrain.schedule == "cosine":
        return steps - pretrain.warmup_steps
    share = COOLDOWN if pretrain.cooldown is None else pretrain.cooldown
    return max(round(share * steps), 1)


def in_pretrain(key: str) -> str:
    """Where a key stands that nothing but ``pretrain`` says."""
    return f"pretrain.{key}"


def check_recipe(pretrain: Pretrain, named: Named = in_pretrain) -> None:
    """Raise :class:`UserError` for a value that makes no sense; ``named`` tells where a key of it stands."""
    for key in ("tokens", "batch_size", "learning_rate", "matrix_learning_rate", "gradient_clip"):
        positive(named(key), getattr(pretrain, key))
    positive(named("initialization.std"), pretrain.initialization.std)
    choice(named("optimizer"), pretrain.optimizer, OPTIMIZERS)
    choice(named("schedule"), pretrain.schedule, SCHEDULES)

    def right(key: str, fits: Callable[[Any], bool], rule: str) -> None:
        value = getattr(pretrain, key)
        require(value is None or fits(value), named(key), value, rule)

    right("matrix_momentum", lambda momentum: 0 <= momentum < 1, "it is from 0 to below 1")
    right("warmup_steps", lambda steps: steps >= 0, "it is 0 or more")
    right("cooldown", lambda share: 0 < share <= 1, "it is a share of the steps, above 0 and at most 1")
    right("final_learning_rate", lambda final: 0 <= final <= 1, "it is a fraction of the peak, 0 to 1")
    right("weight_decay", lambda decay: decay >= 0, "it is 0 or more")
    fits = len(pretrain.betas) == 2 and all(0 <= beta < 1 for beta in pretrain.betas)
    require(fits, named("betas"), pretrain.betas, "it is two numbers from 0 to below 1")
    if pretrain.cooldown_shape is not None:
        choice(named("cooldown_shape"), pretrain.cooldown_shape, COOLDOWN_SHAPES)


def conditional_keys() -> list[str]:
    """The keys that only some recipes read: ``None`` where they are not given."""
    return [*(key for kind in OPTIMIZERS.values() for key in kind.keys), *WSD_KEYS]


def idle_keys(pretrain: Pretrain) -> dict[str, str]:
    """Keys that this recipe does not read, and which of its choices says so."""
    idle = {key: f"optimizer {pretrain.optimizer}" for kind in OPTIMIZERS.values() for key in kind.keys}
    if pretrain.schedule == "cosine":
        idle |= dict.fromkeys(WSD_KEYS, "schedule cosine")
    return {key: reader for key, reader in idle.items() if key not in OPTIMIZERS[pretrain.optimizer].keys}


def check_schedule(pretrain: Pretrain, steps: int, run: str, named: Named = in_pretrain) -> None:
    """Raise :class:`UserError` where warm-up and cooldown do not fit into the ``steps`` of ``run``, such as a cell."""
    warmup, cooldown = pretrain.warmup_steps, cooldown_steps(pretrain, steps)
    of_run = f"the {steps} steps of {run} (tokens / (batch_size * context_length))"
    require(warmup < steps, named("warmup_steps"), warmup, f"it must be less than {of_run}")
    right = f"with a cooldown of {cooldown} steps (pretrain.cooldown) it is more than {of_run}; shorten one of them"
    require(warmup + cooldown <= steps, named("warmup_steps"), warmup, right)
