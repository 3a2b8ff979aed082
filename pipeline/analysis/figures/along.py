"""Scores along training: what the weights at the counts of ``evaluate.at`` scored, to the final ones."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from pipeline.analysis.figures.canvas import Drawing, Figures, count_axis, legend, line, panels
from pipeline.analysis.figures.style import series_styles
from pipeline.analysis.rows.points import Point
from pipeline.analysis.statistics.tasks import main_task_metrics
from pipeline.results.along import scores_along
from pipeline.results.metrics import LOSS, Metric, quality_metrics
from pipeline.results.probes import summaries

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def along_figures(points: list[Point]) -> Figures:
    """A panel per score, a line per model, the mean over its seeds."""
    scored = [point for point in points if any(row.evaluate.along for row in point.rows)]
    if not scored:
        return
    metrics = _shown(scored)
    figure, drawn = panels(len(metrics), share_y=False)
    for axes, metric in zip(drawn, metrics, strict=True):
        _draw(axes, scored, points, metric)
    legend(figure, *drawn)
    told = "Held-out loss, tasks and probes of the weights on their way; the last mark of a line is the final weights'."
    yield figure, Drawing("along", "Scores along training", told)


def _shown(points: list[Point]) -> list[Metric]:
    """The loss, the main score of each task, and what sums the probes up."""
    rows = [row for point in points for row in point.rows]
    probes = {key for row in rows for key in summaries(row.evaluate)}
    main = {LOSS.key, *(metric.key for metric in main_task_metrics(rows)), *probes}
    return [metric for metric in quality_metrics([row.evaluate for row in rows]) if metric.key in main]


def _draw(axes: Axes, scored: list[Point], points: list[Point], metric: Metric) -> None:
    styles = series_styles(points)
    sizes = {point.size for point in scored}
    for point in scored:
        by_tokens: dict[int, list[float]] = {}
        for row in point.rows:
            for tokens, scores in scores_along(row.pretrain, row.evaluate):
                if metric.key in scores:
                    by_tokens.setdefault(tokens, []).append(scores[metric.key])
        label = point.series if len(sizes) == 1 else f"{point.series}, {point.size}"
        pairs = [(float(tokens), statistics.fmean(values)) for tokens, values in sorted(by_tokens.items())]
        line(axes, pairs, styles[point.series], label, markersize=4)
    axes.set_title(metric.label, fontsize=9)
    axes.set_xlabel("Training tokens")
    count_axis(axes)
