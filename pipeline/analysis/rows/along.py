"""A cell's scores along its training, the final ones among them."""

from __future__ import annotations

from pipeline.analysis.rows.points import Row
from pipeline.results.metrics import quality


def scores_along(row: Row) -> list[tuple[int, dict[str, float]]]:
    """The tokens of each waypoint with the scores of the weights then, by their names in results.csv.

    The final weights come last, unless training diverged; without waypoints there are none.
    """
    on_the_way = [(each.tokens, quality(each.scores)) for each in row.evaluate.along]
    if not on_the_way or row.pretrain.diverged:
        return on_the_way
    return [*on_the_way, (row.pretrain.tokens, quality(row.evaluate))]
