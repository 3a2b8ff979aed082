"""Loss against what training took: tokens and FLOPs, a line per model over its budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.analysis.figures.canvas import Drawing, Figures, legend, line, log_axis, name_axes, name_points, panels
from pipeline.analysis.figures.style import series_styles, short
from pipeline.analysis.rows.points import Point
from pipeline.analysis.rows.training import LossPoint, loss_points, over_seeds
from pipeline.results.metrics import LOSS, TRAINING_FLOPS, TRAINING_TOKENS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Trained = dict[str, list[LossPoint]]


def training_figures(points: list[Point]) -> Figures:
    """Test loss against training FLOPs, and against tokens where cells were trained on several amounts."""
    trained = loss_points([row for point in points for row in point.rows])
    models = {model: [point for point, _ in over_seeds(losses)] for model, losses in trained.items()}
    every = [loss for losses in models.values() for loss in losses]
    if len({point.flops for point in every}) < 2:
        return
    several = len({point.tokens for point in every}) > 1
    columns = {"tokens": TRAINING_TOKENS, "flops": TRAINING_FLOPS} if several else {"flops": TRAINING_FLOPS}
    figure, drawn = panels(len(columns), width=5.2, height=4.2)
    for axes, (x, metric) in zip(drawn, columns.items(), strict=True):
        _draw(axes, points, models, x)
        name_axes(axes, metric, LOSS)
    legend(figure, *drawn)
    sizes = {point.cell.model: point.size for point in points}
    last = [(sizes[model], losses[-1]) for model, losses in models.items()]
    for axes, x in zip(drawn, columns, strict=True):
        name_points(axes, [(size, getattr(end, x), end.loss) for size, end in last])
    title = f"Loss against training {'tokens and FLOPs' if several else 'FLOPs'}"
    yield figure, Drawing("training", title, f"{title}, each point a finished training. {_least(models)}.")


def _draw(axes: Axes, points: list[Point], models: Trained, x: str) -> None:
    """A line per model where one was trained on several amounts of tokens, else a line per series over its sizes."""
    styles, cells = series_styles(points), {point.cell.model: point for point in points}
    budgets = any(len(losses) > 1 for losses in models.values())
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for model, losses in models.items():
        series, size = cells[model].series, cells[model].size
        lines.setdefault((series, size if budgets else ""), []).extend((getattr(end, x), end.loss) for end in losses)
    for (series, _), pairs in lines.items():
        line(axes, sorted(pairs), styles[series], series, linewidth=1.2)
    log_axis(axes, "x")


def _least(models: Trained) -> str:
    loss, tokens, model = min((end.loss, end.tokens, model) for model, losses in models.items() for end in losses)
    return f"The least is {loss:.3f}, of {model} after {short(tokens)} tokens"
