"""What the recipes of a study must fulfil: ``pretrain``, and what sizes, variants and models change in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from pipeline.study.cells import Cell, cells
from pipeline.study.pretraining import Layer, given, origin, over, pretraining, training_steps, written
from pipeline.study.recipe import Named, check_recipe, check_schedule, conditional_keys, idle_keys, in_pretrain
from pipeline.study.rules import all_positive, choice, remedy, require
from pipeline.study.schema import Pretrain, Study

STATUSES = ("tuned", "shared", "predicted")


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
    found = [
        (named(key), getattr(pretrain, key), reader)
        for pretrain, named in readings or [(study.pretrain, in_pretrain)]
        for key, reader in _conditional(pretrain).items()
    ]
    read = {place for place, _, reader in found if reader is None}
    for place, value, reader in found:
        require(place in read, place, value, f"it has no effect with {reader}; leave it out")


def _conditional(pretrain: Pretrain) -> dict[str, str | None]:
    """The keys given that only some recipes read, and which choice makes this one leave it unread, if any does."""
    idle = idle_keys(pretrain)
    return {key: idle.get(key) for key in conditional_keys() if getattr(pretrain, key) is not None}
