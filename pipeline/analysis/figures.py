"""The report's static figures of quality against speed, memory and size. Those of one model's losses lie beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.analysis.canvas import Drawing, Figures, legend, line, log_axis, panels, save, size_panels, unzip
from pipeline.analysis.loss_figures import loss_figures
from pipeline.analysis.metrics import LOSS, PARAMETERS, Metric, readable, setting_metric, settings_of
from pipeline.analysis.pareto import front
from pipeline.analysis.scaling import IsoFlop, Scaling, SeriesLaw
from pipeline.analysis.style import GREY, RC, series_styles, short
from pipeline.analysis.table import FAMILIES, Point, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEYOND = 4.0  # how far past its points a fitted law is drawn, as a ratio


def draw_all(points: list[Point], scaling: Scaling, folder: Path) -> list[Drawing]:
    """Draw every figure that the results hold data for."""
    from matplotlib import rc_context

    if not points:
        return []
    with rc_context(RC):
        drawn = (*_fronts(points), *_laws(points, scaling), *_optima(points, scaling), *loss_figures(points))
        return [save(figure, drawing, folder) for figure, drawing in (*drawn, *_batches(points))]


def _fronts(points: list[Point]) -> Figures:
    """Loss against tokens/s, and against bytes a sample, in each setting."""
    for setting in settings_of([row for point in points for row in point.rows]):
        for field, name, words in (
            ("tokens_per_second", "throughput", "generation throughput"),
            ("bytes_per_sample", "memory", "memory a sample"),
        ):
            x = setting_metric(setting, field)
            figure, (axes,) = panels(1, width=7.6, height=4.6)
            _draw_front(axes, points, x, LOSS)
            title = f"Loss against {words}, {readable(setting)}"
            axes.set_title(title)
            legend(figure, axes)
            yield figure, Drawing(f"{name}_{setting}", title, _describe_front(points, x))


def _draw_front(axes: Axes, points: list[Point], x: Metric, y: Metric) -> None:
    """Points by series, each family's front as a line, points that their own family dominates greyed."""
    styles = series_styles(points)
    for family in (family for family in FAMILIES if any(point.family == family for point in points)):
        split = front([point for point in points if point.family == family], (x, y))
        dashes = "-" if family == "vanilla" else "--"
        if len(split.front) > 1:
            axes.plot(*unzip(sorted(_at(point, x, y) for point in split.front)), dashes, color="#666666", zorder=1)
            axes.plot([], [], dashes, color="#666666", label=f"{family} front")
        for series, style in styles.items():
            beaten = (_at(point, x, y) for point in split.dominated if point.series == series)
            axes.plot(*unzip(beaten), color=GREY, marker=style.marker, markersize=5, linestyle="none", zorder=2)
            kept = [_at(point, x, y) for point in split.front if point.series == series]
            if kept:
                line(axes, kept, style, series, linestyle="none", markersize=7, zorder=3)
        for point in split.front:
            axes.annotate(point.size, _at(point, x, y), xytext=(6, -11), textcoords="offset points", fontsize=8)
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    for metric, which in ((x, "x"), (y, "y")):
        if metric.logarithmic:
            log_axis(axes, which)


def _describe_front(points: Sequence[Point], x: Metric) -> str:
    best = ", ".join(point.name for point in front(points, (x, LOSS)).front) or "none"
    return f"{LOSS.label} against {x.label}. No other configuration beats these in both: {best}."


def _laws(points: list[Point], scaling: Scaling) -> Figures:
    """Loss against size, compute or tokens with the fitted laws, drawn thin where they extrapolate."""
    styles = series_styles(points)
    for x in dict.fromkeys(law.x for law in scaling.laws):
        laws = [law for law in scaling.laws if law.x is x]
        figure, (axes,) = panels(1, width=7.6, height=4.6)
        for law in laws:
            pairs = [_at(point, x, LOSS) for point in law.points]
            line(axes, pairs, styles[law.series], law.series + law.at, linestyle="none")
            _draw_law(axes, law, styles[law.series].colour)
        axes.set_xlabel(x.label)
        axes.set_ylabel(LOSS.label)
        log_axis(axes, "x")
        legend(figure, axes)
        title = f"Loss against {x.label.lower()}"
        axes.set_title(title)
        told = "; ".join(f"{law.series}{law.at}: exponent {law.law.exponent}" for law in laws)
        yield figure, Drawing(f"scaling_{x.key}", title, f"Power laws with an offset, dotted past the points. {told}.")


def _draw_law(axes: Axes, law: SeriesLaw, colour: str) -> None:
    import numpy as np

    for low, high, dashes in ((law.law.low, law.law.high, "-"), (law.law.high, BEYOND * law.law.high, ":")):
        x = np.geomspace(low, high, 40)
        predicted = [law.law.predict(float(value)) for value in x]
        axes.plot(x, [each.value for each in predicted], dashes, color=colour, linewidth=1.2)
        axes.fill_between(
            x, [each.low for each in predicted], [each.high for each in predicted], color=colour, alpha=0.1, linewidth=0
        )


def _optima(points: list[Point], scaling: Scaling) -> Figures:
    """Loss against parameters at equal training FLOPs (paper, figure 4c), a panel a budget."""
    if not scaling.optima:
        return
    styles = series_styles(points)
    budgets = list(dict.fromkeys(short(optimum.budget) for optimum in scaling.optima))
    figure, axes = panels(len(budgets))
    for each, budget in zip(axes, budgets, strict=True):
        for optimum in (optimum for optimum in scaling.optima if short(optimum.budget) == budget):
            pairs = sorted(_at(point, PARAMETERS, LOSS) for point in optimum.points)
            line(each, pairs, styles[optimum.series], optimum.series, linestyle="none")
            _draw_parabola(each, optimum, styles[optimum.series].colour)
        each.set_title(f"{budget} FLOPs")
        each.set_xlabel(PARAMETERS.label)
        log_axis(each, "x")
    axes[0].set_ylabel(LOSS.label)
    legend(figure, *axes)
    told = "; ".join(
        f"{o.series} at {short(o.budget)}: {short(o.fit.optimum.value)} parameters" for o in scaling.optima
    )
    yield (
        figure,
        Drawing("isoflop", "Loss at equal training FLOPs", f"Parabolas in the size's logarithm. Optima: {told}."),
    )


def _draw_parabola(axes: Axes, optimum: IsoFlop, colour: str) -> None:
    import numpy as np

    sizes = [PARAMETERS.of(point) or 1.0 for point in optimum.points]
    x = np.geomspace(min(sizes), max(sizes), 60)
    axes.plot(x, optimum.fit.at(x), "--", color=colour, linewidth=1.2)
    if min(sizes) <= optimum.fit.optimum.value <= max(sizes):
        axes.axvline(optimum.fit.optimum.value, color=colour, linestyle=":", linewidth=1)


def _batches(points: list[Point]) -> Figures:
    """Tokens/s against batch for each setting, a panel a size."""
    styles = series_styles(points)
    for setting in settings_of([row for point in points for row in point.rows]):
        swept = [point for point in points if len(_measured(point.rows[0], setting)) > 1]
        if not swept:
            continue
        batches = sorted({batch for point in swept for batch, _ in _measured(point.rows[0], setting)})
        figure, drawn = size_panels(swept)
        for axes, _, members in drawn:
            for point in members:
                line(axes, _measured(point.rows[0], setting), styles[point.series], point.series)
            log_axis(axes, "x", batches if len(batches) < 8 else None)
            log_axis(axes, "y")
            axes.set_xlabel("Batch (sequences)")
        drawn[0][0].set_ylabel(f"{readable(setting)} tokens/s")
        legend(figure, *(axes for axes, _, _ in drawn))
        title = f"Throughput by batch, {readable(setting)}"
        told = "Generated tokens a second at each batch measured, a panel a size."
        yield figure, Drawing(f"batch_{setting}", title, told)


def _measured(row: Row, setting: str) -> list[tuple[float, float]]:
    if setting not in row.benchmark.settings:
        return []
    return sorted((m.batch, m.tokens_per_second) for m in row.benchmark.settings[setting].measurements)


def _at(point: Point, x: Metric, y: Metric) -> tuple[float, float]:
    across, up = x.of(point), y.of(point)
    assert across is not None
    assert up is not None
    return across, up
