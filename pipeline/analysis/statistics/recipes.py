"""Which recipe each model was trained with, how it was found, and what it is worth."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.analysis.rows.points import Row
from pipeline.analysis.rows.training import by_model
from pipeline.study.recipe import matrix_learning_rate
from pipeline.study.recipe_checks import STATUSES as FOUND
from pipeline.study.schema import Override, Pretrain, Tuning
from pipeline.study.tune_space import OTHERWISE

TUNED, UNTUNED = "tuned", "untuned"
STATUSES = (*FOUND, *(f"{status}{OTHERWISE}" for status in FOUND), UNTUNED)
MOST_NAMED = 3  # models that a sentence names; of more it gives the number
ALWAYS = (
    "optimizer",
    "learning_rate",
    "matrix_learning_rate",
    "batch_size",
    "warmup_steps",
    "schedule",
    "steps",
    "tokens",
)
"""What is said of every recipe; of the other keys only where models differ in them."""


@dataclass(frozen=True)
class ModelRecipe:
    """What a model's seeds and budgets were trained with; ``steps`` and ``tokens`` are theirs, each number once."""

    model: str
    recipe: Pretrain
    tuning: Tuning | None
    steps: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def status(self) -> str:
        """One of :data:`STATUSES`."""
        return UNTUNED if self.tuning is None else self.tuning.status

    def keys(self) -> dict[str, Any]:
        """What can be set by model, under its name in params.yaml, then steps and tokens."""
        return keys_of(self.recipe) | {"steps": self.steps, "tokens": self.tokens}


def keys_of(recipe: Pretrain) -> dict[str, Any]:
    """What can be set by model, but its tokens, such as ``initialization.std``; ``None`` for what it does not read."""
    names = [field.name for field in dataclasses.fields(Override) if field.name not in ("tokens", "initialization")]
    start = {f"initialization.{name}": value for name, value in dataclasses.asdict(recipe.initialization).items()}
    rate = {"matrix_learning_rate": matrix_learning_rate(recipe)}
    return {name: getattr(recipe, name) for name in names} | rate | start


def recipes(rows: Iterable[Row]) -> list[ModelRecipe]:
    """One per model that the study trains, in the order of its cells."""
    models = []
    for model, members in by_model(rows).items():
        first = members[0]
        if first.recipe is not None:
            steps, tokens = ({getattr(row.pretrain, name) for row in members} for name in ("steps", "tokens"))
            models.append(ModelRecipe(model, first.recipe, first.tuning, tuple(sorted(steps)), tuple(sorted(tokens))))
    return models


def differing(models: Sequence[ModelRecipe]) -> list[str]:
    """The keys in which the models differ, those of :data:`ALWAYS` first."""
    every = [model.keys() for model in models]
    names = dict.fromkeys((*ALWAYS, *(name for keys in every for name in keys)))
    return [name for name in names if any(keys[name] != every[0][name] for keys in every)]


def summary(models: Sequence[ModelRecipe]) -> list[str]:
    """Sentences on how the recipes were found; a single one where none was tuned."""
    if not models:
        return []
    if all(model.status == UNTUNED for model in models):
        return ["No recipe was tuned."]
    return [f"Recipes of {len(models)} models: {_counts(models)}.", *_edges(models), *_factor_of_two(models)]


def _counts(models: Sequence[ModelRecipe]) -> str:
    counts = Counter(model.status for model in models)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])


def _edges(models: Sequence[ModelRecipe]) -> list[str]:
    edges = [
        f"{model.model} ({', '.join(model.tuning.at_edge)})"
        for model in models
        if model.tuning and model.tuning.at_edge
    ]
    told = "The best value was the least or the greatest that was tried, so the optimum is not bracketed"
    return [f"{told}: {', '.join(edges)}."] if edges else []


def _factor_of_two(models: Sequence[ModelRecipe]) -> list[str]:
    costs = [
        (cost, f"{model.model}, {change}")
        for model in models
        if model.tuning
        for change, cost in (("halved", model.tuning.halved), ("doubled", model.tuning.doubled))
        if cost is not None
    ]
    if not costs:
        return []
    (least, _), (most, where) = min(costs), max(costs)
    return [f"A factor of two in the learning rate costs {least:.3f} to {most:.3f} nats per token (most: {where})."]


def in_words(models: Sequence[ModelRecipe]) -> str:
    """``with tuned recipes``, ``with untuned recipes``, or which of the models have no tuned one."""
    others = [model for model in models if model.status != TUNED]
    if not others:
        return "with tuned recipes"
    if all(model.status == UNTUNED for model in models):
        return "with untuned recipes"
    named = [f"{model.model} is {model.status}" for model in others]
    told = named if len(named) <= MOST_NAMED else [f"{_counts(others)}"]
    return f"with recipes tuned for {len(models) - len(others)} of {len(models)} models ({', '.join(told)})"
