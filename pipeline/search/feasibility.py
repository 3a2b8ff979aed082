"""What a trial will cost; known before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.models import costs
from pipeline.study import Cell, Study, model_config, pretraining, training_steps
from pipeline.study.recipe import OPTIMIZERS


@dataclass(frozen=True)
class Cost:
    """``training_memory`` in bytes, for one sequence a forward pass; the names are those of ``search.constraints``."""

    total_parameters: int
    non_embedding_parameters: int
    training_flops: float
    training_memory: int


def cost(study: Study, cell: Cell, vocabulary: int) -> Cost:
    """Raises :class:`UserError` where the cell's parts do not fit together."""
    config, pretrain = model_config(study, cell, vocabulary), pretraining(study, cell)
    optimizer = OPTIMIZERS[pretrain.optimizer]
    tokens = training_steps(pretrain) * pretrain.batch_size * pretrain.context_length
    return Cost(
        total_parameters=costs.total_parameters(config),
        non_embedding_parameters=costs.non_embedding_parameters(config),
        training_flops=tokens * costs.training_flops_per_token(config),
        training_memory=costs.training_memory(config, optimizer.matrix_moments, optimizer.other_moments),
    )
