"""Loss against training tokens: what each model reached with each budget, and whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.analysis.rows.points import Row
from pipeline.results.metrics import LOSS


@dataclass(frozen=True)
class Reached:
    """What one run of a model reached: the loss (nats a token) of its cell after ``tokens`` and ``training_flops``.

    The FLOPs are those of a run of its own, trunk and cooldown.
    """

    tokens: int
    training_flops: float
    loss: float
    seed: int


def by_tokens(rows: Iterable[Row]) -> dict[str, list[Reached]]:
    """The runs of each model, as ``Cell.model`` names it, from the fewest tokens; without those that diverged."""
    found: dict[str, list[Reached]] = {}
    for row in rows:
        loss, pretrain = LOSS.value(row), row.pretrain
        if loss is not None and row.cell.family != "pretrained":
            reached = Reached(pretrain.tokens, pretrain.training_flops, loss, row.cell.seed)
            found.setdefault(row.cell.model, []).append(reached)
    return {model: sorted(runs, key=lambda run: (run.tokens, run.seed)) for model, runs in found.items()}
