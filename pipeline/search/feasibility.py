"""What a point would cost, and by how much it is over the search's limits; known before anything is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pipeline.base.errors import UserError
from pipeline.models import costs
from pipeline.study import Study, model_config, pretraining, training_steps
from pipeline.study.recipe import OPTIMIZERS
from pipeline.study.search_space import Point, trial_study


@dataclass(frozen=True)
class Cost:
    """``training_memory`` in bytes, for one sequence a forward pass; the names are those of ``search.constraints``."""

    total_parameters: int
    non_embedding_parameters: int
    training_flops: float
    training_memory: int


def cost(study: Study, point: Point, vocabulary: int) -> Cost:
    """Raises :class:`UserError` where the point's parts do not fit together."""
    trial, cell = trial_study(study, point)
    config, pretrain = model_config(trial, cell, vocabulary), pretraining(trial, cell)
    optimizer = OPTIMIZERS[pretrain.optimizer]
    tokens = training_steps(pretrain) * pretrain.batch_size * pretrain.context_length
    return Cost(
        total_parameters=costs.total_parameters(config),
        non_embedding_parameters=costs.non_embedding_parameters(config),
        training_flops=tokens * costs.training_flops_per_token(config),
        training_memory=costs.training_memory(config, optimizer.matrix_moments, optimizer.other_moments),
    )


def violations(study: Study, point: Point, vocabulary: int) -> dict[str, float]:
    """By which share the point exceeds each limit, 0 or less where it does not; ``fits`` is 1 where no model results.

    The keys are the same for every point of a search.
    """
    assert study.search is not None
    limits = {key: value for key, value in vars(study.search.constraints).items() if value is not None}
    try:
        found = asdict(cost(study, point, vocabulary))
    except UserError:
        return dict.fromkeys(limits, 0.0) | {"fits": 1.0}
    return {key: found[key] / limit - 1 for key, limit in limits.items()} | {"fits": 0.0}
