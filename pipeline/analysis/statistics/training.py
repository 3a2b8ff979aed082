"""What training cost and left undone: FLOPs at equal loss, runs of few steps, curves that still fall at their end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.analysis.rows.families import named
from pipeline.analysis.rows.groups import contenders, references
from pipeline.analysis.rows.points import Point, Row
from pipeline.analysis.rows.training import from_scratch
from pipeline.analysis.statistics.speedup import Matched, at_equal_quality
from pipeline.results.metrics import LOSS, TRAINING_FLOPS
from pipeline.study.recipe import cooldown_steps

FEW_STEPS = 2000  # docs/methods.md: with 763 steps models were in another order than with 3,052
STEEP = 0.12  # nats per doubling of tokens; docs/methods.md has what it was calibrated on
LAST = 0.25  # share of the tokens over which the slope is taken
SURE = 1.64  # standard errors by which a slope differs from none
LEAST_ROWS = 5
MOST_NAMED = 6  # cells that a warning names before it counts the others


def compute(points: Sequence[Point]) -> list[Matched]:
    """The training FLOPs at equal loss of block transformers trained from scratch, against each vanilla family.

    Of a family as a whole, then by block length, then by model: over the sizes and budgets that each of them has.
    """
    sides = _contenders([point for point in points if point.kind in ("vanilla", "block")])
    pairs = itertools.product(sides.items(), references(points).items())
    return [at_equal_quality(mine, other, LOSS, TRAINING_FLOPS) for mine, other in pairs]


def _contenders(points: Sequence[Point]) -> dict[str, list[Point]]:
    models: dict[str, list[Point]] = {}
    for point in points:
        if point.kind == "block":
            models.setdefault(point.cell.model, []).append(point)
    return contenders(points) | (models if len(models) > 1 else {})


def compute_words(matched: Matched, seeds: int) -> str:
    """One sentence on two families: how many times the FLOPs at the lowest loss that both reach, or why no number."""
    best, first, second = matched.best, named(matched.first), named(matched.second)
    if best is None:
        return f"No ratio of the training FLOPs of {first} to those of {second} at equal loss: {matched.remark}."
    known = best.low is not None and best.high is not None
    interval = f" (95 % interval {best.low:.3g} to {best.high:.3g})" if known else ""
    limits = "; one seed, so the interval is of the test documents alone" if known and seeds == 1 else ""
    lacks = f"; {matched.remark}" if matched.remark and not known else ""
    return (
        f"At a loss of {best.at:.3f}, the lowest that both reach, {first} take {best.value:.3g} times{interval} "
        f"the training FLOPs of {second}{limits}{lacks}."
    )


def end_slope(row: Row) -> tuple[float, float] | None:
    """Nats per doubling of tokens by which training loss falls before its end, and the standard error.

    By least squares on the last quarter of the tokens; with ``wsd`` of those before the cooldown, whose descent is no
    promise of more. ``None`` where the curve has too few rows there.
    """
    columns = (row.curve.get(name, []) for name in ("step", "tokens", "train_loss"))
    rows = zip(*columns, strict=False)  # none where a column is lost
    known = [(tokens, loss) for step, tokens, loss in rows if math.isfinite(loss) and step <= _last_step(row)]
    end = max((tokens for tokens, _ in known), default=0.0)
    late = [(math.log2(tokens), loss) for tokens, loss in known if tokens > (1 - LAST) * end]
    if len(late) < LEAST_ROWS:
        return None
    x, y = np.array(late).T
    x -= x.mean()
    slope = (x @ y) / (x @ x)
    residuals = y - y.mean() - slope * x
    return -float(slope), float(np.sqrt(residuals @ residuals / (len(x) - 2) / (x @ x)))


def _last_step(row: Row) -> int:
    """The last step at the peak rate with ``wsd``, else the last step."""
    steps, recipe = row.pretrain.steps, row.recipe
    return steps - cooldown_steps(recipe, steps) if recipe is not None and recipe.schedule == "wsd" else steps


def warnings(rows: Sequence[Row]) -> list[str]:
    """A line on cells of few steps and one on curves that fall steeply at their end, where there are such.

    A budget is short by choice, so it is not warned of.
    """
    trained = [row for row in from_scratch(rows) if row.cell.budget is None and not row.pretrain.diverged]
    few = {row.name: row.pretrain.steps for row in trained if row.pretrain.steps < FEW_STEPS}
    slopes = [(row.name, *slope) for row in trained if (slope := end_slope(row)) is not None]
    steep = {name: slope for name, slope, error in slopes if slope > max(STEEP, SURE * error)}
    lines = []
    if few:
        what = f"cells took fewer than {FEW_STEPS:,} steps ({_range(few, '{:,}')}){_names(few, trained)}"
        lines.append(f"{_share(few, trained)} {what}. Orders measured so were wrong (docs/results/recipe.md).")
    if steep:
        by = f"({_range(steep, '{:.2f}')} nats per doubling of tokens){_names(steep, slopes)}"
        what = f"training curves still fall steeply at their end {by}"
        lines.append(f"{_share(steep, slopes)} {what}. More training may change orders.")
    return lines


def _share(some: dict[str, Any], every: Sequence[object]) -> str:
    return f"{len(some)} of {len(every)}"


def _range(values: dict[str, Any], shape: str) -> str:
    low, high = shape.format(min(values.values())), shape.format(max(values.values()))
    return low if low == high else f"{low} to {high}"


def _names(some: dict[str, Any], every: Sequence[object]) -> str:
    """Which they are, unless they are all."""
    more = [f"{len(some) - MOST_NAMED} more"] if len(some) > MOST_NAMED else []
    return "" if len(some) == len(every) else f": {', '.join([*list(some)[:MOST_NAMED], *more])}"
