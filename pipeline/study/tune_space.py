"""What a tuning tunes: models of the grid, the cell that a point of their recipes makes, what a recipe is found for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from itertools import islice, product
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.made_of import made_of
from pipeline.models.config import to_dict
from pipeline.study.cells import Cell, cells, model_config
from pipeline.study.pretraining import over, pretraining, written
from pipeline.study.recipe_checks import check_steps
from pipeline.study.recipe_space import SHORT, Point, choices, override, read, readable, trial_name
from pipeline.study.schema import Pretrain, Recipe, Study, Tune, Tuning

LOOKED_AT = 10_000  # combinations of choices, until as many points as trials are found
OF_A_RUN = ("tokens", "budgets", "validate_every", "validation_tokens")
"""Keys of ``pretrain`` that say how long a run is and how it is measured, and so are no part of what is tuned."""
OTHERWISE = " with other keys"
VALIDATIONS = 8  # of a trial, so that it can be stopped early


def groups(tune: Tune) -> list[list[str]]:
    """The groups of models with one recipe; each is tuned by trials of its first."""
    return [[item] if isinstance(item, str) else item for item in tune.models]


def tunable(study: Study) -> dict[str, Cell]:
    """The models of the grid that start from random weights, each as its first cell."""
    models: dict[str, Cell] = {}
    for cell in cells(study):
        if cell.family != "pretrained" and cell.source is None:
            models.setdefault(cell.model, dataclasses.replace(cell, budget=None))
    return models


def tuned_cell(study: Study, model: str) -> Cell:
    """The model as a cell with the tuning's seed."""
    assert study.tune is not None
    return dataclasses.replace(tunable(study)[model], seed=study.tune.seed)


def sources(model: Cell, tuned: list[Cell]) -> list[Cell]:
    """The tuned models that differ from this one in size alone."""
    kind = (model.family, model.block_length, model.variant)
    return [cell for cell in tuned if (cell.family, cell.block_length, cell.variant) == kind]


def varied(study: Study, model: Cell) -> dict[str, list[Any]]:
    """The choices of each key that a recipe of this model can read."""
    assert study.tune is not None
    return readable(written(study, model), choices(study.tune.space))


def trial_study(study: Study, model: Cell, point: Point) -> tuple[Study, Cell]:
    """The study that a trial is a cell of: the model at a size of its own name, with the point over its recipe."""
    tune = study.tune
    assert tune is not None
    name = trial_name(model.size, point, SHORT)
    cell = dataclasses.replace(model, size=name)
    recipe = over(study.recipes.get(model.model, Recipe()), override(point))
    batch_size = over(written(study, model), recipe).batch_size
    changed = dataclasses.replace(
        study,
        sizes=study.sizes | {name: study.sizes[model.size]},
        recipes={cell.model: dataclasses.replace(recipe, tokens=tune.tokens, tuning=None)},
        pretrain=dataclasses.replace(
            study.pretrain, budgets=[], validate_every=_validate_every(study.pretrain, tune, batch_size)
        ),
        evaluate=dataclasses.replace(study.evaluate, at=[]),
        hardware=dataclasses.replace(study.hardware, devices=1, num_nodes=1),
    )
    return changed, cell


def _validate_every(pretrain: Pretrain, tune: Tune, batch_size: int) -> int:
    """The steps between a trial's validations: the study's, or so few that it has :data:`VALIDATIONS` at least.

    All batch sizes of the choices then validate after the same tokens, since trials are compared at these.
    """
    sequences = tune.tokens // (VALIDATIONS * pretrain.context_length)
    common = math.lcm(batch_size, *tune.space.batch_size)
    together = sequences - sequences % common or sequences
    return min(pretrain.validate_every, max(together // batch_size, 1))


def points(study: Study, model: Cell, most: int) -> list[Point]:
    """The first points of the model that differ and whose warm-up fits into a trial, ``most`` of them at most."""
    keys, recipe = varied(study, model), written(study, model)
    different: list[Point] = []
    for values in islice(product(*keys.values()), LOOKED_AT):
        point = read(recipe, dict(zip(keys, values, strict=True)))
        if point not in different and fits(study, model, point):
            different.append(point)
        if len(different) == most:
            break
    return different


def fits(study: Study, model: Cell, point: Point) -> bool:
    """Whether warm-up and cooldown fit into a trial's steps."""
    try:
        check_steps(*trial_study(study, model, point))
    except UserError:
        return False
    return True


def recipe_hash(study: Study, cell: Cell) -> str:
    """What a recipe is found for, and is: the model, and its keys of ``pretrain`` but for :data:`OF_A_RUN`."""
    pretrain = dataclasses.replace(pretraining(study, cell), warmup_steps=written(study, cell).warmup_steps)
    keys = {key: value for key, value in made_of(pretrain).items() if key not in OF_A_RUN}
    made = {"model": to_dict(model_config(study, cell, vocabulary=64)), "pretrain": keys}
    return f"sha256:{hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]}"


def tuning_of(study: Study, cell: Cell) -> Tuning | None:
    """How the cell's recipe was found; where the model or a key is another one now, the status says so."""
    recipe = study.recipes.get(cell.model, Recipe())
    if recipe.tuning is None or recipe.tuning.keys in (None, recipe_hash(study, cell)):
        return recipe.tuning
    return dataclasses.replace(recipe.tuning, status=f"{recipe.tuning.status}{OTHERWISE}")
