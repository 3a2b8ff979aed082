"""A study that is edited while its jobs wait: DVC would take what they make for what was submitted."""

from __future__ import annotations

from pipeline.base.errors import UserError
from pipeline.data import model_vocabulary
from pipeline.execution.stages import Stage
from pipeline.study import load_study
from pipeline.study.causes import edited_since


def require_unedited(stage: Stage) -> None:
    """Raise :class:`UserError` where study or code are others than at submission, as far as they decide the stage."""
    study = load_study()
    path = edited_since(study, stage.kind, stage.cell, model_vocabulary(study.tokenize))
    if path is not None:
        raise UserError(f"{stage.name}: study or code was edited after its submission ({path}); submit it again")
