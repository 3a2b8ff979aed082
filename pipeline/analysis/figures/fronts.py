"""Figures of Pareto fronts: loss and task scores against speed and memory (paper, figures 2, 9 to 12, 17)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.analysis.figures.canvas import (
    Drawing,
    Figures,
    bars,
    legend,
    line,
    log_axis,
    name_axes,
    name_points,
    panels,
    unzip,
)
from pipeline.analysis.figures.style import BEATEN, SeriesStyle, family_style, series_styles
from pipeline.analysis.rows import timing
from pipeline.analysis.rows.groups import by_family, generate_points
from pipeline.analysis.rows.points import Point, timed_points
from pipeline.analysis.statistics.pareto import Front, front
from pipeline.analysis.statistics.tasks import main_task_metrics
from pipeline.results.metrics import (
    LOSS,
    Metric,
    batch_metric,
    readable,
    setting_metric,
    settings_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 6


def front_figures(points: list[Point]) -> list[Figures]:
    """All figures of this module that the points hold data for."""
    compared = [*points, *generate_points(points)]
    return [
        part
        for setting in settings_of([row for point in points for row in point.rows])
        for part in (_fronts(compared, setting), _scores(compared, setting), _fixed_batches(points, setting))
    ]


def _fronts(points: list[Point], setting: str) -> Figures:
    """Loss against tokens/s, and against bytes per sample."""
    for field, name, words in (
        ("tokens_per_second", "throughput", "generation throughput"),
        ("bytes_per_sample", "memory", "memory per sample"),
    ):
        x = setting_metric(setting, field)
        figure, (axes,) = panels(1, width=7.6, height=4.6)
        kept = draw_front(axes, points, x, LOSS)
        title = f"Loss against {words}, {readable(setting)}"
        axes.set_title(title)
        legend(figure, axes)
        name_points(axes, [(point.size, *located(point, x, LOSS)) for point in kept])
        told = f"{LOSS.label} against {x.label}. No other configuration of its family beats these in both"
        yield figure, Drawing(f"{name}_{setting}", title, f"{told}: {_best(points, x, LOSS)}.")


def draw_front(axes: Axes, points: list[Point], x: Metric, y: Metric) -> list[Point]:
    """Points by series, with each family's front and each series' as lines; faint where their family beats them.

    Returns those on a front.
    """
    styles = series_styles(points)
    families = _families(points, x, y)
    for family, split in families.items():
        if len(split.front) > 1:
            colour, dashes = family_style(family)
            pairs = sorted(located(point, x, y) for point in split.front)
            axes.plot(*unzip(pairs), dashes, color=colour, zorder=1, label=f"{family} front")
        for series, style in styles.items():
            members = [point for point in (*split.front, *split.dominated) if point.series == series]
            if members:
                _draw_series(axes, members, split, style, (x, y))
    name_axes(axes, x, y)
    for metric, which in ((x, "x"), (y, "y")):
        if metric.logarithmic:
            log_axis(axes, which)
    return [point for split in families.values() for point in split.front]


def _draw_series(
    axes: Axes, points: list[Point], split: Front, style: SeriesStyle, metrics: tuple[Metric, Metric]
) -> None:
    """Its points, those on the family's front over the others, and its own front as a thin line."""
    series, colour = points[0].series, style.colour
    kept = [point for point in points if point in split.front]
    beaten = [point for point in points if point not in split.front]
    entry, faint = (f"_{series}" if kept else series), {"markersize": 5, "alpha": BEATEN}
    line(axes, [located(point, *metrics) for point in beaten], style, entry, linestyle="none", **faint)
    bars(axes, (spread(point, *metrics) for point in beaten), colour, series, BEATEN)
    bars(axes, (spread(point, *metrics) for point in kept), colour, series)
    line(axes, [located(point, *metrics) for point in kept], style, series, linestyle="none", markersize=7, zorder=3)
    own = sorted(located(point, *metrics) for point in front(points, metrics).front)
    axes.plot(*unzip(own), color=colour, linewidth=0.8, alpha=0.6, zorder=1, label=f"_{series}")


def _families(points: Sequence[Point], x: Metric, y: Metric) -> dict[str, Front]:
    return {family: front(members, (x, y)) for family, members in by_family(points).items()}


def _best(points: Sequence[Point], x: Metric, y: Metric) -> str:
    splits = _families(points, x, y).values()
    return ", ".join(point.name for split in splits for point in split.front) or "none"


def _scores(points: list[Point], setting: str) -> Figures:
    """Each task's score against tokens/s, a panel per task."""
    scores = main_task_metrics([row for point in points for row in point.rows])[:MOST_PANELS]
    if scores:
        x = setting_metric(setting, "tokens_per_second")
        title = f"Zero-shot scores against throughput, {readable(setting)}"
        told = "; ".join(f"{score.label}: {_best(points, x, score)}" for score in scores)
        figure, axes = panels(len(scores), share_y=False)
        for panel, score in zip(axes, scores, strict=True):
            draw_front(panel, points, x, score)
        legend(figure, *axes)
        yield figure, Drawing(f"scores_{setting}", title, f"{title}. On the front, {told}.")


def _fixed_batches(points: list[Point], setting: str) -> Figures:
    """Loss against tokens/s at the least, a middle and the greatest batch that most points were measured at."""
    counts = Counter(batch for point in points for batch in _batches(point, setting))
    common = sorted(batch for batch, count in counts.items() if 2 * count > len(timed_points(points)))
    if len(common) < 2:
        return
    chosen = [batch_metric(setting, common[at]) for at in sorted({0, len(common) // 2, len(common) - 1})]
    title = f"Loss against throughput at fixed batches, {readable(setting)}"
    figure, axes = panels(len(chosen))
    for panel, rate in zip(axes, chosen, strict=True):
        draw_front(panel, points, rate, LOSS)
        panel.label_outer(remove_inner_ticks=False)
    legend(figure, *axes)
    told = "; ".join(f"{rate.label}: {_best(points, rate, LOSS)}" for rate in chosen)
    yield figure, Drawing(f"fixed_batch_{setting}", title, f"{title}. On the front, {told}.")


def _batches(point: Point, setting: str) -> set[int]:
    """Those that every seed was measured at."""
    measured = (row.benchmark.settings.get(setting) for row in point.rows)
    return set.intersection(
        *({measurement.batch for measurement in setting.measurements} if setting else set() for setting in measured)
    )


def located(point: Point, x: Metric, y: Metric) -> tuple[float, float]:
    """A point's place in a plot of two metrics that it must have."""
    across, up = x.of(point), y.of(point)
    assert across is not None
    assert up is not None
    return across, up


def spread(point: Point, x: Metric, y: Metric) -> tuple[float, float, float | None, float | None]:
    """A point's place and how far it spreads to either side, for bars: over seeds, or over a timing's repeats."""
    return *located(point, x, y), timing.spread(point, x), timing.spread(point, y)
