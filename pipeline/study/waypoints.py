"""Waypoints: the token counts of ``evaluate.at``, at which training keeps a cell's weights, to be scored too.

``checkpoints/CELL/at/TOKENS.safetensors`` are the weights after so many tokens. Cells with a budget have none: until it
cools down, such a run is the whole cell's.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.study.cells import Cell
from pipeline.study.pretraining import origin, pretraining, training_steps
from pipeline.study.rules import positive, require
from pipeline.study.schema import Study

KEY = "evaluate.at"


def waypoints(study: Study, cell: Cell) -> dict[int, int]:
    """The tokens of each waypoint of the cell's training, by the step after which it has seen them."""
    if cell.family == "pretrained" or cell.budget is not None:
        return {}
    pretrain = pretraining(study, cell)
    return {tokens // (pretrain.batch_size * pretrain.context_length): tokens for tokens in study.evaluate.at}


def weights_at(folder: Path, tokens: int) -> Path:
    """The file of a checkpoint folder that holds the weights after so many tokens."""
    return folder / "at" / f"{tokens}.safetensors"


def lacking(study: Study, cell: Cell, folder: Path, step: int) -> list[int]:
    """The waypoints up to ``step`` whose weights a checkpoint folder of the cell does not hold, in tokens."""
    passed = (tokens for reached, tokens in waypoints(study, cell).items() if reached <= step)
    return [tokens for tokens in passed if not weights_at(folder, tokens).is_file()]


def again_for(lost: list[int]) -> str:
    """Why a cell trains again whose weights of these waypoints are not there, in words."""
    listed = ", ".join(f"{tokens:,}" for tokens in lost)
    return f"trains again for its weights after {listed} tokens, which evaluate.at asks for"


def check_waypoints(study: Study) -> None:
    """Raise :class:`UserError` unless the counts rise, each standing once."""
    counts = study.evaluate.at
    for tokens in counts:
        positive(KEY, tokens)
    require(counts == sorted(set(counts)), KEY, counts, "its numbers of tokens rise, and each stands there once")


def check_reached(study: Study, cell: Cell) -> None:
    """Raise :class:`UserError` for a count that is not that of a step of the cell's before its last."""
    pretrain = pretraining(study, cell)
    a_step, steps = pretrain.batch_size * pretrain.context_length, training_steps(pretrain)
    for step, tokens in waypoints(study, cell).items():
        nearest = max(round(tokens / a_step), 1) * a_step
        right = f"cell {cell.name} takes {a_step:,} tokens per step ({origin(study, cell, 'batch_size')})"
        require(tokens == step * a_step, KEY, tokens, f"{right}; the nearest is {nearest}")
        right = f"cell {cell.name} ends after {steps * a_step:,} tokens ({origin(study, cell, 'tokens')})"
        require(step < steps, KEY, tokens, f"{right}, where it is scored in any case; name fewer")
