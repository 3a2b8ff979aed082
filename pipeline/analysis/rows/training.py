"""What models were trained on, and what loss that gave."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipeline.analysis.rows.families import kind
from pipeline.analysis.rows.points import Row
from pipeline.results.metrics import LOSS


class LossPoint(NamedTuple):
    """A finished training's tokens and FLOPs, and its loss on the test documents in nats per token."""

    tokens: int
    flops: float
    loss: float
    seed: int


def from_scratch(rows: Iterable[Row]) -> list[Row]:
    """The rows whose whole training is the study's own, diverged ones too: neither uptrained nor from elsewhere."""
    return [row for row in rows if kind(row.cell) in ("vanilla", "block")]


def by_model(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each model, which differ in their seed and in their tokens, by its name in ``recipes``."""
    models: dict[str, list[Row]] = {}
    for row in rows:
        models.setdefault(row.cell.model, []).append(row)
    return models


def loss_points(rows: Sequence[Row]) -> dict[str, list[LossPoint]]:
    """The losses of each model trained from scratch, by tokens and then by seed.

    Only a finished training has one: what a curve says on its way, before the rate has come down, is no loss at that
    many tokens.
    """
    points: dict[str, list[LossPoint]] = {}
    for row in from_scratch(rows):
        loss = LOSS.value(row)
        if loss is not None:
            trained = row.pretrain
            point = LossPoint(trained.tokens, trained.training_flops, loss, row.cell.seed)
            points.setdefault(row.cell.model, []).append(point)
    return {model: sorted(losses, key=lambda point: (point.tokens, point.seed)) for model, losses in points.items()}


def over_seeds(losses: Sequence[LossPoint]) -> list[tuple[LossPoint, int]]:
    """The mean loss of a model at each number of tokens, in the place of its first seed's, and the number of seeds."""
    groups = [list(group) for _, group in itertools.groupby(losses, key=lambda point: point.tokens)]
    return [(group[0]._replace(loss=statistics.fmean(point.loss for point in group)), len(group)) for group in groups]
