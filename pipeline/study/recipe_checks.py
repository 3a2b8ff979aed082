"""What the recipes of a study must fulfil: ``pretrain``, and what sizes, variants and models change in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.study.cells import Cell, cells
from pipeline.study.pretraining import Layer, given, origin, over, pretraining, training_steps, written
from pipeline.study.recipe import (
    COOLDOWN,
    COOLDOWN_SHAPES,
    OPTIMIZERS,
    SCHEDULES,
    WSD_KEYS,
    cooldown_steps,
    idle_keys,
    warmup_steps,
)
from pipeline.study.rules import all_positive, choice, positive, remedy, require
from pipeline.study.schema import Pretrain, Study

Named = Callable[[str], str]

STATUSES = ("tuned", "shared", "predicted")
WARMUP = 0.05
"""A usual share of the steps, for a message to name."""


def in_pretrain(key: str) -> str:
    """Where a key stands that nothing but ``pretrain`` says."""
    return f"pretrain.{key}"


def check_recipes(study: Study) -> None:
    """Raise :class:`UserError` for a recipe of no model in the grid, a wrong value, or a key without effect."""
    models = {cell.model: cell for cell in cells(study) if cell.family != "pretrained"}
    for name, recipe in study.recipes.items():
        right = f"the grid has no such model; leave it out, of included files too, or: {remedy(name, list(models))}"
        require(name in models, "recipes", name, right)
        if recipe.tuning is not None:
            all_positive(f"recipes.{name}.tuning", recipe.tuning, ("tokens", "trials"))
            choice(f"recipes.{name}.tuning.status", recipe.tuning.status, STATUSES)
    check_recipe(study.pretrain)
    for place, layer in _every_layer(study):
        check_recipe(over(study.pretrain, layer), partial(_named, (place, layer)))
    _check_idle(study, list(models.values()))


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

    right("matrix_momentum", lambda momentum: 0 <= momentum < 1, "it is from 0 to below 1, such as 0.95")
    right("cooldown", lambda share: 0 < share <= 1, "it is a share of the steps, above 0 and at most 1")
    right("final_learning_rate", lambda final: 0 <= final <= 1, "it is a fraction of the peak, 0 to 1")
    right("weight_decay", lambda decay: decay >= 0, "it is 0 or more")
    _check_warmup(pretrain, named)
    fits = len(pretrain.betas) == 2 and all(0 <= beta < 1 for beta in pretrain.betas)
    require(fits, named("betas"), pretrain.betas, "it is two numbers from 0 to below 1, such as [0.9, 0.95]")
    if pretrain.cooldown_shape is not None:
        choice(named("cooldown_shape"), pretrain.cooldown_shape, COOLDOWN_SHAPES)


def _check_warmup(pretrain: Pretrain, named: Named) -> None:
    given, room, most = pretrain.warmup_steps, 1.0, f"such as {WARMUP}"
    if pretrain.schedule == "wsd":
        room -= COOLDOWN if pretrain.cooldown is None else pretrain.cooldown
        most = f"and at most what the cooldown leaves ({room:g})"
    right = f"it is a whole number of steps, 0 or more, or a share of them, such as {WARMUP}"
    require(given >= 0, named("warmup_steps"), given, right)
    right = f"a number with a point is a share of the steps, below 1, {most}"
    require(isinstance(given, int) or (given < 1 and given <= room), named("warmup_steps"), given, right)


def check_schedule(pretrain: Pretrain, steps: int, run: str, named: Named = in_pretrain) -> None:
    """Raise :class:`UserError` where warm-up and cooldown do not fit into the ``steps`` of ``run``, such as a cell."""
    warmup, cooldown = warmup_steps(pretrain, steps), 0
    if pretrain.schedule == "wsd":
        cooldown = cooldown_steps(pretrain, steps)
    most = min(steps - cooldown, steps - 1)
    takes = f", and its cooldown {cooldown} of them (pretrain.cooldown)" if cooldown else ""
    share = f", or a share of the steps, such as {WARMUP}" if round(WARMUP * steps) <= most else ""
    right = f"{run} takes {steps} steps (tokens / (batch_size * context_length)){takes}; it is at most {most}{share}"
    require(warmup <= most, named("warmup_steps"), warmup, right)


def check_steps(study: Study, cell: Cell) -> None:
    """Raise :class:`UserError` where the cell's steps do not hold warm-up and cooldown, or its budget is none."""
    pretrain = pretraining(study, cell)
    if cell.budget is not None:
        _check_budget(study, cell.budget, cell.whole)
    check_schedule(pretrain, training_steps(pretrain), f"cell {cell.name}", partial(origin, study, cell))


def _check_budget(study: Study, budget: int, whole: Cell) -> None:
    """A budget is a cooldown from the trunk of the cell ``whole``, which trains longer."""
    pretrain, key = pretraining(study, whole), "pretrain.budgets"
    right = f"it needs pretrain.schedule wsd, but cell {whole.name} has {pretrain.schedule}"
    require(pretrain.schedule == "wsd", key, budget, f"{right} ({origin(study, whole, 'schedule')})")
    trains = f"cell {whole.name} trains on {pretrain.tokens:,} tokens ({origin(study, whole, 'tokens')})"
    require(budget < pretrain.tokens, key, budget, f"{trains}; a budget is less")
    steps = training_steps(replace(pretrain, tokens=budget))
    for tokens in (pretrain.tokens, *study.pretrain.budgets):
        same = tokens != budget and training_steps(replace(pretrain, tokens=tokens)) == steps
        right = f"cell {whole.name} takes {steps} steps for {tokens:,} tokens too; leave one of them out"
        require(not same, key, budget, right)


def conditional_keys() -> list[str]:
    """The keys that only some recipes read: ``None`` where they are not given."""
    return [*(key for kind in OPTIMIZERS.values() for key in kind.keys), *WSD_KEYS]


def _every_layer(study: Study) -> Iterator[Layer]:
    yield from ((f"sizes.{name}.pretrain", size.pretrain) for name, size in study.sizes.items())
    yield from ((f"variants.{name}.pretrain", variant.pretrain) for name, variant in study.variants.items())
    yield from ((f"recipes.{name}", recipe) for name, recipe in study.recipes.items())


def _named(layer: Layer, key: str) -> str:
    place, override = layer
    return f"{place}.{key}" if given(override, key) else in_pretrain(key)


def _check_idle(study: Study, models: list[Cell]) -> None:
    """A key may be idle for some of the models that have it, such as those with another optimizer, but not for all."""
    readings: list[tuple[Pretrain, Named]] = [(written(study, cell), partial(origin, study, cell)) for cell in models]
    conditional = [
        (named(key), getattr(pretrain, key), reader)
        for pretrain, named in readings or [(study.pretrain, in_pretrain)]
        for key, reader in _conditional(pretrain).items()
    ]
    read = {place for place, _, reader in conditional if reader is None}
    for place, value, reader in conditional:
        require(place in read, place, value, f"it has no effect with {reader}; leave it out")


def _conditional(pretrain: Pretrain) -> dict[str, str | None]:
    """The keys given that only some recipes read, and which choice makes this one leave it unread, if any does."""
    idle = idle_keys(pretrain)
    return {key: idle.get(key) for key in conditional_keys() if getattr(pretrain, key) is not None}
