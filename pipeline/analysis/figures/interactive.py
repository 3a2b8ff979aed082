"""A drawn figure as data: its panels, series, colours and marks, which the page shows as a chart where scripts run.

A series is an artist's label. A label that begins with ``_`` is of the series that follows, which has its entry in the
legend already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.analysis.figures.style import SHAPES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.collections import PolyCollection
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

Record = dict[str, Any]
STROKE = "stroke"  # Vega's symbol of a line
DASHES: dict[Any, list[int]] = {"-": [1, 0], "--": [6, 4], ":": [2, 3]}


@dataclass
class Scale:
    """One axis of a panel; ``ticks`` are its labels by their places as a script writes these, if it has its own."""

    title: str
    logarithmic: bool
    domain: list[float]
    ticks: dict[str, str]


@dataclass
class Panel:
    """Records by mark: each with its series ``s``, place ``x`` and ``y``, opacity ``o``, and what its mark needs."""

    title: str
    x: Scale
    y: Scale
    squares: list[Record] = field(default_factory=list)
    bands: list[Record] = field(default_factory=list)
    lines: list[Record] = field(default_factory=list)
    rules: list[Record] = field(default_factory=list)
    points: list[Record] = field(default_factory=list)
    texts: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class Look:
    """A series in the legend: colour, Vega's symbol, and the dashes of a line."""

    colour: str
    shape: str
    dash: str = ""


def chart_of(figure: Figure) -> dict[str, Any]:
    """``panels`` in their order, and ``series`` by their names."""
    series = {name: asdict(look) for name, look in _looks(figure.axes).items()}
    return {"panels": [asdict(_panel(axes)) for axes in figure.axes], "series": series}


def _looks(every: Iterable[Axes]) -> dict[str, Look]:
    """Each series once; one that has markers by these."""
    looks: dict[str, Look] = {}
    for line in (line for axes in every for line in _lines(axes)):
        name, shape = _series(line), SHAPES.get(str(line.get_marker()), STROKE)
        if name not in looks or looks[name].shape == STROKE:
            dash = " ".join(map(str, DASHES.get(line.get_linestyle(), ())))
            looks[name] = Look(_hex(line.get_color()), shape, dash)
    return looks


def _lines(axes: Axes) -> list[Line2D]:
    """Those of a series: neither the ends of error bars, which Matplotlib has among the lines, nor ornaments."""
    caps = {id(cap) for container in _whiskers(axes) for cap in container.lines[1]}
    return [line for line in axes.lines if id(line) not in caps and not str(line.get_label()).startswith("_child")]


def _whiskers(axes: Axes) -> list[ErrorbarContainer]:
    from matplotlib.container import ErrorbarContainer

    return [container for container in axes.containers if isinstance(container, ErrorbarContainer)]


def _series(artist: Any) -> str:
    return str(artist.get_label()).removeprefix("_")


def _panel(axes: Axes) -> Panel:
    from matplotlib.collections import PolyCollection

    panel = Panel(axes.get_title(), _scale(axes.xaxis), _scale(axes.yaxis))
    for number, line in enumerate(_lines(axes)):
        _read_line(panel, axes, line, number)
    for container in _whiskers(axes):
        for collection in container.lines[2]:
            for (x, y), (x2, y2) in collection.get_segments():
                panel.rules.append(_record(container, collection.get_alpha(), x=x, y=y, x2=x2, y2=y2))
    for number, filled in enumerate(area for area in axes.collections if isinstance(area, PolyCollection)):
        panel.bands += [_record(filled, filled.get_alpha(), k=number, **at) for at in _band(filled)]
    for image in axes.images:
        panel.squares += list(_squares(image))
    for bar in axes.patches:
        (left, low), (right, high) = bar.get_window_extent().transformed(axes.transData.inverted()).get_points()
        panel.squares.append(_square(left, low, right, high, bar.get_facecolor()))
    panel.texts += [_text(text) for text in axes.texts]
    return panel


def _scale(axis: Axis) -> Scale:
    from matplotlib.category import StrCategoryLocator
    from matplotlib.ticker import FixedLocator

    ends = [_round(float(end)) for end in axis.get_view_interval()]
    locator = axis.get_major_locator()
    ticks = {}
    if isinstance(locator, FixedLocator | StrCategoryLocator):
        places = list(locator())
        labels = axis.get_major_formatter().format_ticks(places)
        ticks = {f"{_round(at):.12g}": label for at, label in zip(places, labels, strict=True)}
    return Scale(axis.get_label_text(), axis.get_scale() == "log", ends, ticks)


def _read_line(panel: Panel, axes: Axes, line: Line2D, number: int) -> None:
    """Its path and its markers, whichever it has."""
    pairs = list(zip(*_places(axes, line), strict=True))
    if line.get_drawstyle() == "steps-post":
        pairs = [pairs[0], *(corner for (_, y), after in pairwise(pairs) for corner in ((after[0], y), after))]
    if line.get_linestyle() != "None":
        look = {"k": number, "d": DASHES[line.get_linestyle()], "w": line.get_linewidth()}
        panel.lines += [_record(line, line.get_alpha(), x=x, y=y, i=turn, **look) for turn, (x, y) in enumerate(pairs)]
    if str(line.get_marker()) in SHAPES:
        every: Any = line.get_markevery() or 1
        panel.points += [_record(line, line.get_alpha(), x=x, y=y) for x, y in pairs[::every]]


def _places(axes: Axes, line: Line2D) -> tuple[list[float], list[float]]:
    """Its points in data; a line over the whole width or height has its ends at the panel's."""
    across, up = (np.asarray(values, float).tolist() for values in (line.get_xdata(), line.get_ydata()))
    in_x, in_y = line.get_transform().contains_branch_seperately(axes.transData)
    return (across if in_x else list(axes.get_xlim())), (up if in_y else list(axes.get_ylim()))


def _record(artist: Any, alpha: float | None, **values: Any) -> Record:
    numbers = {key: _round(value) if isinstance(value, float) else value for key, value in values.items()}
    return {"s": _series(artist), "o": 1 if alpha is None else alpha, **numbers}


def _band(collection: PolyCollection) -> Iterator[Record]:
    """The lower and the upper end at each x of what ``fill_between`` drew."""
    ends: dict[float, list[float]] = {}
    for path in collection.get_paths():
        for x, y in np.asarray(path.vertices).tolist():
            ends.setdefault(x, []).append(y)
    return ({"x": x, "y": min(ys), "y2": max(ys)} for x, ys in sorted(ends.items()))


def _squares(image: AxesImage) -> Iterator[Record]:
    """A square a value, from the top as images are."""
    values = np.asarray(image.get_array())
    for (row, column), value in np.ndenumerate(values):
        yield _square(column - 0.5, row - 0.5, column + 0.5, row + 0.5, image.cmap(image.norm(value)))


def _square(left: float, low: float, right: float, high: float, colour: Any) -> Record:
    return {"x": _round(left), "x2": _round(right), "y": _round(low), "y2": _round(high), "c": _hex(colour)}


def _text(text: Text) -> Record:
    """With the offset that it was given, Vega's running downwards; ``beside`` its point is wherever there is room."""
    from matplotlib.text import Annotation

    x, y = text.xy if isinstance(text, Annotation) else text.get_position()
    dx, dy = text.get_position() if isinstance(text, Annotation) else (0.0, 0.0)
    place = {"x": _round(float(x)), "y": _round(float(y)), "dx": _round(float(dx)), "dy": _round(-float(dy))}
    look = {"t": text.get_text(), "c": _hex(text.get_color()), "a": text.get_horizontalalignment()}
    return look | place | {"beside": isinstance(text, Annotation)}


def _round(value: float) -> float:
    """Five digits, which no plot shows more of."""
    return float(f"{value:.5g}")


def _hex(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return to_hex(colour)
