"""What static figures are made with: panels, axes, a legend, and files whose bytes depend on the results alone."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.analysis.figures.interactive import chart_of
from pipeline.analysis.figures.style import DARK_STYLE, SeriesStyle, short
from pipeline.analysis.rows.points import Point
from pipeline.base.files import replacing, write_text
from pipeline.results.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3  # panels side by side
CROWD = 8  # points of a size past which block lengths get panels of their own
MOST_PANELS = 9  # as long as they are no more than this
WIDE = 9.0  # inches past which a figure takes the page's whole width
LONG_LABEL = 32  # characters of a label past which a legend beside one panel leaves it too little


@dataclass(frozen=True)
class Drawing:
    """A figure that lies in the report's folder as ``figures/{name}.png`` and ``.svg``.

    ``chart`` is the same one as data (:func:`pipeline.analysis.figures.interactive.chart_of`).
    """

    name: str
    title: str
    description: str
    wide: bool = False
    chart: dict[str, Any] = field(default_factory=dict, repr=False)


QUICK = 2
"""zlib's level for PNG: the usual one takes half as long again for files an eighth smaller."""

Figures = Iterator[tuple["Figure", Drawing]]
"""Figures that are made as they are asked for, one after another."""


def save(figure: Figure, drawing: Drawing, folder: Path) -> Drawing:
    """Write both forms through their canvases: ``savefig`` would lay out and draw each of them twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    png: Any = FigureCanvasAgg(figure)
    with replacing(folder / f"{drawing.name}.png") as temporary, temporary.open("wb") as opened:
        png.print_png(opened, metadata={"Software": None}, pil_kwargs={"compress_level": QUICK})
    figure.set_layout_engine("none")
    svg: Any = FigureCanvasSVG(figure)
    written = io.StringIO()
    svg.print_svg(written, metadata={"Date": None, "Creator": "blockscale"})
    write_text(folder / f"{drawing.name}.svg", written.getvalue().replace("</svg>", f"{DARK_STYLE}</svg>"))
    return replace(drawing, wide=figure.get_figwidth() > WIDE, chart=chart_of(figure))


def panels(count: int, width: float = 4.3, height: float = 3.6, share_y: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels, at most :data:`COLUMNS` in a row."""
    from matplotlib.figure import Figure

    columns = 2 if count == 4 else min(count, COLUMNS)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(width * columns, 6.4), height * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel())
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def size_panels(points: Sequence[Point]) -> tuple[Figure, list[tuple[Axes, str, list[Point]]]]:
    """A panel for each size, with its points; for each size and block length, where several variants would crowd it.

    Vanilla points are in every panel of their size.
    """
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(f"size {point.size}", []).append(point)
    by_length: dict[str, list[Point]] = {}
    for point in (point for point in points if point.cell.block_length is not None):
        by_length.setdefault(f"size {point.size}, L={point.cell.block_length}", []).append(point)
    if max(map(len, groups.values())) > CROWD and len(by_length) <= MOST_PANELS:
        vanilla = [point for point in points if point.cell.block_length is None]
        groups = {
            title: [point for point in vanilla if point.size == members[0].size] + members
            for title, members in by_length.items()
        }
    figure, axes = panels(len(groups))
    for panel, title in zip(axes, groups, strict=True):
        panel.set_title(title)
    sizes = [members[0].size for members in groups.values()]
    return figure, list(zip(axes, sizes, groups.values(), strict=True))


def line(axes: Axes, pairs: Iterable[tuple[float, float]], style: SeriesStyle, label: str, **options: Any) -> None:
    """A series' line in its colour, with its markers unless ``marker`` says otherwise."""
    axes.plot(*unzip(pairs), **({"color": style.colour, "marker": style.marker, "label": label} | options))


def name_axes(axes: Axes, x: Metric, y: Metric) -> None:
    """Label both axes, with an arrow towards what is better."""
    axes.set_xlabel(directed(x))
    axes.set_ylabel(directed(y))


def directed(metric: Metric) -> str:
    """A metric's label with an arrow along its axis, which points to what is better."""
    if metric.lower is None:
        return metric.label
    return (
        f"{metric.label} (\N{LEFTWARDS ARROW} better)"
        if metric.lower
        else f"{metric.label} (better \N{RIGHTWARDS ARROW})"
    )


def name_points(axes: Axes, named: Iterable[tuple[str, float, float]]) -> None:
    """Write each name beside its point (x, y), where it covers no point and no name before it if there is such a place.

    The axes must have their final scale, and the figure its legend, which makes them smaller.
    """
    listed = list(named)
    if (figure := axes.get_figure(root=True)) and (layout := figure.get_layout_engine()):
        layout.execute(figure)
    pixel = 72 / axes.figure.dpi
    places = axes.transData.transform([(x, y) for _, x, y in listed] or np.empty((0, 2))) * pixel
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for (name, *at), (x, y) in zip(listed, places.tolist(), strict=True):
        width = 5.0 * len(name)
        boxes = [(dx, dy, (x + dx, y + dy, x + dx + width, y + dy + 8.0)) for dx, dy in _around(width)]
        dx, dy, box = min(boxes, key=lambda place: sum(_overlap(place[2], other) for other in taken))
        taken.append(box)
        axes.annotate(name, (at[0], at[1]), xytext=(dx, dy), textcoords="offset points", fontsize=8)


def _around(width: float) -> list[tuple[float, float]]:
    """Offsets of a text's lower left corner from its point, the preferred one first; in points."""
    sides = [
        (6.0, -11.0),
        (6.0, 4.0),
        (-6.0 - width, -11.0),
        (-6.0 - width, 4.0),
        (-width / 2, 8.0),
        (-width / 2, -15.0),
    ]
    return sides + [(dx * 2, dy * 2) for dx, dy in sides[:4]]


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    across, up = (min(one[side + 2], other[side + 2]) - max(one[side], other[side]) for side in (0, 1))
    return max(across, 0.0) * max(up, 0.0)


def bars(
    axes: Axes,
    marks: Iterable[tuple[float, float, float | None, float | None]],
    colour: str,
    label: str,
    alpha: float = 1,
) -> None:
    """To either side of each mark (x, y) of a series how far it spreads over seeds or repeats, where that is known."""
    for x, y, across, up in marks:
        if across or up:
            look: Any = {"ecolor": colour, "elinewidth": 1, "capsize": 2, "zorder": 2, "alpha": alpha}
            axes.errorbar(x, y, xerr=across, yerr=up, fmt="none", label=f"_{label}", **look)


def band(axes: Axes, x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str, label: str) -> None:
    """A series' interval along x."""
    axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0, label=f"_{label}")


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


def count_axis(axes: Axes) -> None:
    """An x axis whose labels are whole numbers in short form."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def legend(figure: Figure, *axes: Axes, title: str | None = None) -> None:
    """One legend right of the panels, or below where its labels would leave a single panel no room; each label once."""
    entries: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    below = len(axes) == 1 and max(map(len, entries), default=0) > LONG_LABEL
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": 2} if below else {"loc": "outside right upper"}
    figure.legend(list(entries.values()), list(entries), title=title, **place)


def unzip(pairs: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """The first and the second parts of pairs, as two lists."""
    listed = list(pairs)
    return [x for x, _ in listed], [y for _, y in listed]
