"""How a cell is trained: the keys under ``pretrain``, over them its size's, its variant's, and its model's recipe."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from pipeline.study.cells import Cell
from pipeline.study.recipe import idle_keys, warmup_steps
from pipeline.study.schema import Override, Pretrain, Study

Layer = tuple[str, Override]


def pretraining(study: Study, cell: Cell) -> Pretrain:
    """The keys that the cell is trained with; what its optimizer and schedule do not read is ``None``.

    A warm-up is in steps; a share is of the whole cell's, so that budgets have its trunk.
    """
    pretrain = written(study, cell)
    tokens = pretrain.tokens if cell.budget is None else cell.budget
    warmup = warmup_steps(pretrain, training_steps(pretrain))
    idle: dict[str, Any] = dict.fromkeys(idle_keys(pretrain))
    return dataclasses.replace(pretrain, tokens=tokens, budgets=[], warmup_steps=warmup, **idle)


def written(study: Study, cell: Cell) -> Pretrain:
    """The study's keys with those of the cell's layers, as they are written."""
    pretrain = study.pretrain
    for _, layer in layers(study, cell):
        pretrain = over(pretrain, layer)
    return pretrain


def layers(study: Study, cell: Cell) -> list[Layer]:
    """What changes ``pretrain`` for the cell, under the key where it stands; each goes before those in front of it."""
    changes: list[Layer] = [(f"sizes.{cell.size}.pretrain", study.sizes[cell.size].pretrain)]
    if cell.variant is not None:
        changes.append((f"variants.{cell.variant}.pretrain", study.variants[cell.variant].pretrain))
    if cell.model in study.recipes:
        changes.append((f"recipes.{cell.model}", study.recipes[cell.model]))
    return changes


def origin(study: Study, cell: Cell, key: str) -> str:
    """Where the study says what the cell's ``key`` is, such as ``sizes.s.pretrain.learning_rate``."""
    places = [place for place, layer in layers(study, cell) if given(layer, key)]
    return f"{places[-1] if places else 'pretrain'}.{key}"


def given(layer: Override, key: str) -> bool:
    """Whether the layer changes ``key``, such as ``initialization.std``."""
    value: Any = layer
    for part in key.split("."):
        value = None if value is None else getattr(value, part, None)
    return value is not None


def flat(pretrain: Pretrain) -> dict[str, Any]:
    """The keys with their values, those of ``initialization`` as ``initialization.std``."""
    keys = dict(vars(pretrain))
    return keys | {f"initialization.{key}": value for key, value in vars(keys.pop("initialization")).items()}


def over(section: Any, layer: Any) -> Any:
    """The section with what the layer changes."""
    fields = [field.name for field in dataclasses.fields(section)]
    changed = {name: value for name in fields if (value := getattr(layer, name, None)) is not None}
    for name, value in changed.items():
        if dataclasses.is_dataclass(value) and getattr(section, name) is not None:
            changed[name] = over(getattr(section, name), value)
    return dataclasses.replace(section, **changed)


def training_steps(pretrain: Pretrain) -> int:
    """Optimizer steps that see ``pretrain.tokens`` tokens, the last one whole."""
    return math.ceil(pretrain.tokens / (pretrain.batch_size * pretrain.context_length))
