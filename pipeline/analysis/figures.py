"""The report's static figures, as PNG and SVG whose bytes depend on the results alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.analysis.metrics import LOSS, Metric, readable, setting_metric, settings_of
from pipeline.analysis.pareto import front
from pipeline.analysis.style import GREY, RC, series_styles, short
from pipeline.analysis.table import Point, Row, read_curve
from pipeline.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3  # panels side by side


@dataclass(frozen=True)
class Drawing:
    """A figure that lies in the report's folder as ``figures/{name}.png`` and ``.svg``."""

    name: str
    title: str
    description: str


def draw_all(points: list[Point], folder: Path) -> list[Drawing]:
    """Draw every figure that the results hold data for."""
    from matplotlib import rc_context

    with rc_context(RC):
        return [
            _save(figure, drawing, folder)
            for figure, drawing in (*_fronts(points), *_curves(points), *_block_positions(points), *_batches(points))
        ]


def _save(figure: Figure, drawing: Drawing, folder: Path) -> Drawing:
    """Write both forms through their canvases: ``savefig`` would lay out and draw each of them twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with replacing(folder / f"{drawing.name}.png") as temporary, temporary.open("wb") as opened:
        FigureCanvasAgg(figure).print_png(opened, metadata={"Software": None})
    figure.set_layout_engine("none")
    with replacing(folder / f"{drawing.name}.svg") as temporary, temporary.open("w", encoding="utf-8") as opened:
        FigureCanvasSVG(figure).print_svg(opened, metadata={"Date": None, "Creator": "blockscale"})
    return drawing


Figures = Iterable[tuple["Figure", Drawing]]


def _panels(count: int, width: float = 4.3, height: float = 3.6, columns: int = COLUMNS) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(width * columns, 6.4), height * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).ravel())
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _fronts(points: list[Point]) -> Figures:
    """Loss against tokens/s, and against bytes a sample, in each setting."""
    rows = [row for point in points for row in point.rows]
    for setting in settings_of(rows):
        for field, name, words in (
            ("tokens_per_second", "throughput", "generation throughput"),
            ("bytes_per_sample", "memory", "memory a sample"),
        ):
            x = setting_metric(setting, field)
            figure, (axes,) = _panels(1, width=7.6, height=4.6)
            draw_front(axes, points, x, LOSS)
            title = f"Loss against {words}, {readable(setting)}"
            axes.set_title(title)
            _legend(figure, axes)
            yield figure, Drawing(f"{name}_{setting}", title, _describe_front(points, x))


def draw_front(axes: Axes, points: list[Point], x: Metric, y: Metric) -> None:
    """Points by series, each family's front as a line, points that their own family dominates greyed."""
    styles = series_styles(points)
    for family in dict.fromkeys(point.family for point in points):
        split = front([point for point in points if point.family == family], (x, y))
        line = sorted((_at(point, x, y) for point in split.front), key=lambda at: at[0])
        dashes = "-" if family == "vanilla" else "--"
        axes.plot(*_unzip(line), dashes, color="#666666", zorder=1, label=f"{family} front")
        for series, style in styles.items():
            beaten = _unzip(_at(point, x, y) for point in split.dominated if point.series == series)
            axes.plot(*beaten, color=GREY, marker=style.marker, markersize=5, linestyle="none", zorder=2)
            kept = _unzip(_at(point, x, y) for point in split.front if point.series == series)
            if kept[0]:
                look = {"color": style.colour, "marker": style.marker, "markersize": 7.0}
                axes.plot(*kept, linestyle="none", label=series, zorder=3, **look)
        for point in split.front:
            axes.annotate(point.size, _at(point, x, y), xytext=(6, -11), textcoords="offset points", fontsize=8)
    _scale(axes, x, y)


def _scale(axes: Axes, x: Metric, y: Metric) -> None:
    for metric, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        axis.set_label_text(metric.label)
        if metric.logarithmic:
            log_axis(axes, "x" if metric is x else "y")


def log_axis(axes: Axes, which: str, ticks: list[float] | None = None) -> None:
    """A logarithmic axis labelled with plain numbers: those given, or as many round ones as fit."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
    decades = math.log10(high / low)
    round_numbers = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.6 else (1.0, 2.0, 5.0)
    axis.set_major_locator(FixedLocator(ticks) if ticks else LogLocator(subs=round_numbers, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_locator(NullLocator())


def _curves(points: list[Point]) -> Figures:
    """Validation loss over training tokens, a panel a size."""
    curves = {row.name: curve for point in points for row in point.rows if (curve := read_curve(row.name))}
    drawn = [point for point in points if any(row.name in curves for row in point.rows)]
    if not drawn:
        return
    styles = series_styles(points)
    sizes = list(dict.fromkeys(point.size for point in drawn))
    figure, panels = _panels(len(sizes))
    for axes, size in zip(panels, sizes, strict=True):
        for point in (point for point in drawn if point.size == size):
            for row in (row for row in point.rows if row.name in curves):
                tokens, losses = _learning_curve(curves[row.name])
                axes.plot(tokens, losses, color=styles[point.series].colour, label=point.series)
        axes.set_title(f"size {size}")
        axes.set_xlabel("Training tokens")
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
    panels[0].set_ylabel("Validation loss (nats a token)")
    _legend(figure, *panels)
    yield figure, Drawing("curves", "Loss while training", "Validation loss against training tokens, a panel a size.")


def _learning_curve(curve: dict[str, list[float]]) -> tuple[list[float], list[float]]:
    """Tokens and validation loss; training loss where the run never validated."""
    for column in ("validation_loss", "train_loss"):
        pairs = [pair for pair in zip(curve["tokens"], curve[column], strict=True) if math.isfinite(pair[1])]
        if pairs:
            break
    return [tokens for tokens, _ in pairs], [loss for _, loss in pairs]


def _block_positions(points: list[Point]) -> Figures:
    """Loss by position in the block (paper, figure 3d), a panel a size."""
    drawn = [point for point in points if len(point.rows[0].evaluate.loss_by_block_position) > 1]
    if not drawn:
        return
    styles = series_styles(points)
    sizes = list(dict.fromkeys(point.size for point in drawn))
    figure, panels = _panels(len(sizes))
    for axes, size in zip(panels, sizes, strict=True):
        for point in (point for point in points if point.size == size):
            by_position = point.rows[0].evaluate.loss_by_block_position
            style = {"color": styles[point.series].colour, "label": point.series}
            if point in drawn:
                axes.plot(
                    range(1, len(by_position) + 1), _gaps(by_position), marker=styles[point.series].marker, **style
                )
            elif point.family == "vanilla":
                axes.axhline(point.rows[0].evaluate.loss, linewidth=1.2, linestyle=":", **style)
        axes.set_title(f"size {size}")
        axes.set_xlabel("Position in the block")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel(LOSS.label)
    _legend(figure, *panels)
    yield (
        figure,
        Drawing("block_position", "Loss by position in the block", "Loss at each position of a block, a panel a size."),
    )


def _batches(points: list[Point]) -> Figures:
    """Tokens/s against batch, a panel a setting and size."""
    rows = [row for point in points for row in point.rows]
    styles = series_styles(points)
    for setting in settings_of(rows):
        swept = [p for p in points if len(_measured(p.rows[0], setting)) > 1]
        if not swept:
            continue
        sizes = list(dict.fromkeys(point.size for point in swept))
        figure, panels = _panels(len(sizes))
        for axes, size in zip(panels, sizes, strict=True):
            for point in (point for point in swept if point.size == size):
                style = {"color": styles[point.series].colour, "marker": styles[point.series].marker}
                axes.plot(*_unzip(_measured(point.rows[0], setting)), label=point.series, **style)
            log_axis(axes, "x", sorted({batch for point in swept for batch, _ in _measured(point.rows[0], setting)}))
            log_axis(axes, "y")
            axes.set_title(f"size {size}")
            axes.set_xlabel("Batch (sequences)")
        panels[0].set_ylabel(f"{readable(setting)} tokens/s")
        _legend(figure, *panels)
        title = f"Throughput by batch, {readable(setting)}"
        yield (
            figure,
            Drawing(f"batch_{setting}", title, "Generated tokens a second at each batch measured, a panel a size."),
        )


def _measured(row: Row, setting: str) -> list[tuple[float, float]]:
    if setting not in row.benchmark.settings:
        return []
    return sorted((m.batch, m.tokens_per_second) for m in row.benchmark.settings[setting].measurements)


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _at(point: Point, x: Metric, y: Metric) -> tuple[float, float]:
    at = x.of(point), y.of(point)
    assert at[0] is not None and at[1] is not None
    return at[0], at[1]


def _unzip(pairs: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    listed = list(pairs)
    return [x for x, _ in listed], [y for _, y in listed]


def _legend(figure: Figure, *panels: Axes) -> None:
    """One legend right of the panels, each label once."""
    entries: dict[str, object] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(list(entries.values()), list(entries), loc="outside right upper")


def _describe_front(points: Sequence[Point], x: Metric) -> str:
    best = front(points, (x, LOSS)).front
    return (
        f"{LOSS.label} against {x.label}. No other configuration beats these in both: "
        f"{', '.join(point.name for point in best) or 'none'}."
    )
