"""A cell's scores along its training, the final ones among them."""

from __future__ import annotations

from pipeline.results.metrics import quality
from pipeline.results.records import EvaluateResult, PretrainResult


def scores_along(pretrained: PretrainResult, evaluated: EvaluateResult) -> list[tuple[int, dict[str, float]]]:
    """The tokens of each waypoint with the scores of the weights then, by their names in results.csv.

    The final weights come last, unless training diverged; without waypoints there are none.
    """
    on_the_way = [(waypoint.tokens, quality(waypoint.scores)) for waypoint in evaluated.along]
    if not on_the_way or pretrained.diverged:
        return on_the_way
    return [*on_the_way, (pretrained.tokens, quality(evaluated))]
