"""The weights that training kept on its way, at the counts of ``evaluate.at``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import device as devices
from pipeline.base.errors import UserError
from pipeline.models import checkpoint
from pipeline.results.records import PretrainResult, read_result
from pipeline.study.superseded import RESULT
from pipeline.study.waypoints import lacking, waypoints, weights_at

if TYPE_CHECKING:
    from pipeline.checkpoints import Opened
    from pipeline.study import Cell, Study


def kept_weights(study: Study, cell: Cell, folder: Path) -> dict[int, Path]:
    """The files of the cell's waypoints by their tokens; a training that diverged has only those before.

    Raises :class:`UserError` where one is missing.
    """
    reached = waypoints(study, cell)
    if not reached:
        return {}
    trained = read_result(folder / RESULT, PretrainResult, "pretrain").steps
    for tokens in lacking(study, cell, folder, trained):
        path = weights_at(folder, tokens)
        raise UserError(f"{path}: no such weights; run `dvc repro` (stage pretrain), which trains the cell again")
    return {tokens: weights_at(folder, tokens) for step, tokens in reached.items() if step <= trained}


def load_weights(opened: Opened, path: Path) -> None:
    """Give an opened model other weights. Raises :class:`UserError` where they do not fit."""
    checkpoint.assign(opened.model, checkpoint.read_weights(path), path)
    opened.model.to(opened.device, devices.dtype(opened.precision)).eval()
