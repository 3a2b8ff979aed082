"""Points of recipes: keys of ``pretrain`` that a search varies, and what a point makes of a recipe."""

from __future__ import annotations

import hashlib
from functools import partial
from itertools import product
from typing import Any

from pipeline.study.pretraining import over
from pipeline.study.recipe import idle_keys
from pipeline.study.recipe_checks import check_recipe, in_pretrain
from pipeline.study.rules import require
from pipeline.study.schema import InitializationOverride, Override, Pretrain, RecipeSpace

Value = int | float | str
Point = dict[str, Value]

STD = "initialization_std"
SHORT = {
    "learning_rate": "lr",
    "matrix_learning_rate": "mlr",
    "batch_size": "bs",
    "warmup_steps": "wu",
    "weight_decay": "wd",
    "matrix_momentum": "mm",
    "final_learning_rate": "fl",
    STD: "std",
    "optimizer": "",
    "schedule": "",
}
"""The short form of each key in the names of trials."""

WORDS = ("optimizer", "schedule")
NUMBERS = tuple(key for key in SHORT if key not in WORDS)
LONGEST_NAME = 64


def choices(space: RecipeSpace) -> dict[str, list[Any]]:
    """The keys that a search varies, with their choices, numbers in order."""
    given = {key: values for key, values in vars(space).items() if values}
    return {key: list(dict.fromkeys(values if key in WORDS else sorted(values))) for key, values in given.items()}


def override(point: Point) -> Override:
    """What the point's keys of a recipe change in ``pretrain``."""
    keys: dict[str, Any] = {key: point[key] for key in SHORT if key in point}
    std = keys.pop(STD, None)
    return Override(**keys, initialization=None if std is None else InitializationOverride(std=std))


def value_of(pretrain: Pretrain, key: str) -> Any:
    """The value that a recipe has of a point's key."""
    if key == "matrix_learning_rate" and pretrain.matrix_learning_rate is None:
        return pretrain.learning_rate
    return pretrain.initialization.std if key == STD else getattr(pretrain, key)


def read(pretrain: Pretrain, point: Point) -> Point:
    """The point without the keys that its own optimizer leaves unread, so that equal recipes are equal points."""
    idle = idle_keys(over(pretrain, override(point)))
    return {key: value for key, value in point.items() if key not in idle}


def readable(pretrain: Pretrain, varied: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The keys that at least one point over ``pretrain`` reads."""
    words = [varied.get(key, [getattr(pretrain, key)]) for key in WORDS]
    points: list[Point] = [
        dict.fromkeys(varied, 1) | dict(zip(WORDS, chosen, strict=True)) for chosen in product(*words)
    ]
    return {key: values for key, values in varied.items() if any(key in read(pretrain, point) for point in points)}


def check_space(section: str, pretrain: Pretrain, space: RecipeSpace) -> None:
    """Raise :class:`UserError` for a choice that no recipe can have."""
    for key in SHORT:
        for value in getattr(space, key):
            check_recipe(over(pretrain, override({key: value})), partial(_named, section, key))


def check_read(section: str, recipes: list[Pretrain], space: RecipeSpace) -> None:
    """Raise :class:`UserError` for a key that none of the recipes reads, whatever the point."""
    varied = choices(space)
    for key in SHORT:
        used = key not in varied or any(key in readable(recipe, varied) for recipe in recipes)
        optimizers = ", ".join(dict.fromkeys(recipe.optimizer for recipe in recipes))
        right = f"it has no effect with optimizer {optimizers}; leave it out, or give {section}.space.optimizer"
        require(used, f"{section}.space.{key}", varied.get(key), right)


def _named(section: str, key: str, read_key: str) -> str:
    return f"{section}.space.{key}" if read_key.replace(".", "_") == key else in_pretrain(read_key)


def trial_name(base: str, point: Point, short: dict[str, str]) -> str:
    """A name that tells the point's keys: ``s_lr0p004_bs8``; a long one ends in a hash instead."""
    name = "_".join([base, *(f"{form}{_spelled(point[key])}" for key, form in short.items() if key in point)])
    if len(name) <= LONGEST_NAME:
        return name
    return f"{base[: LONGEST_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _spelled(value: Value) -> str:
    """With the letters that a name may have: ``0p004``, ``1em05``."""
    return str(value).replace(".", "p").replace("-", "m").replace("+", "")
