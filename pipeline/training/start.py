"""The weights that training starts from."""

from __future__ import annotations

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.models import build, checkpoint, initialise
from pipeline.models.language_model import LanguageModel
from pipeline.training.job import Job


def initial_model(job: Job) -> LanguageModel:
    """Drawn by the cell's seed, or made of its source's weights. Raises :class:`UserError` where these do not fit."""
    model = build(job.config)
    initialization = job.pretrain.initialization
    initialise(model, job.cell.seed, initialization.std, initialization.depth_scaled)
    if job.cell.source is not None:
        _uptrain(model, job, job.cell.source)
    return model


def _uptrain(model: LanguageModel, job: Job, source_name: str) -> None:
    from pipeline.interop.uptraining import uptrain_from

    assert job.uptraining is not None
    source, _ = checkpoint.load(paths.checkpoint(source_name))
    try:
        uptrain_from(model, source.float(), job.uptraining.method)
    except UserError as error:
        raise UserError(f"cell {job.cell.name} cannot start from {source_name}: {error}") from None
