"""How figures and page look: colours that colour-blind readers tell apart, a marker a series, numbers in short form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.analysis.rows.families import GENERATE, GROUPED
from pipeline.analysis.rows.points import Point, series_of

# Paul Tol's "bright" scheme and Okabe and Ito's orange: distinct under the common colour vision deficiencies, and each
# with a contrast of 3:1 or more to white.
COLOURS = ("#0072b2", "#b5540a", "#00845e", "#aa3377", "#7a5195", "#8a6d00", "#00838f", "#c1121f")
"""One per block length; block and uptrained models of the same length have two."""
FAMILIES = {"vanilla": "#222222", "block": "#4b5d8a", "uptrained": "#33691e", "pretrained": "#5f6368"}
"""Of vanilla models, and of the others over all block lengths."""
VANILLA = FAMILIES["vanilla"]
BLOCK = FAMILIES["block"]
ELSEWHERE = "#9a6324"
"""Of another implementation's speed."""
DARK = {
    "#222222": "#e6e6e6",
    "#4b5d8a": "#a9b8e8",
    "#33691e": "#9ccc65",
    "#5f6368": "#a5abb3",
    "#9a6324": "#d9a066",
    "#0072b2": "#56b4e9",
    "#b5540a": "#f0913f",
    "#00845e": "#2ecc9a",
    "#aa3377": "#ee7fb8",
    "#7a5195": "#b99be0",
    "#8a6d00": "#e0c23a",
    "#00838f": "#4fd0dd",
    "#c1121f": "#ff7a7f",
}
DARK_PAPER = "#16181c"
DARK_CHROME = {
    "#ffffff": DARK_PAPER,
    "#000000": "#e8eaee",
    "#666666": "#a9afb9",
    "#b8b8b8": "#5c626c",
    "#e4e4e4": "#33373f",
}
MARKERS = {"": ("o", "D", "P", "X", "*", "p"), GROUPED: ("^", "v", "<", ">"), GENERATE: ("s",)}
"""Of each attention: the first one, and others where its models differ in their variants too."""
SHAPES = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
    "P": "cross",
    "X": "M-1,-.55L-.55,-1L0,-.45L.55,-1L1,-.55L.45,0L1,.55L.55,1L0,.45L-.55,1L-1,.55L-.45,0Z",
    "p": "M0,-1L.95,-.31L.59,.81H-.59L-.95,-.31Z",
    "*": "M0,-1.2L.29,-.4L1.14,-.37L.46,.15L.7,.97L0,.48L-.7,.97L-.46,.15L-1.14,-.37L-.29,-.4Z",
}
"""Matplotlib's markers as Vega's, a path where Vega has none of that name."""
DASHES = {"": "-", GROUPED: "--", GENERATE: ":"}
BEATEN = 0.35
"""The opacity of a point that another one of its family beats."""
GREY = "#8a8f98"

RC: Any = {
    "svg.hashsalt": "blockscale",
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],  # every text of an SVG file names them all
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 10.0,
    "legend.fontsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.dpi": 150.0,
}


@dataclass(frozen=True)
class SeriesStyle:
    """One series' colour and Matplotlib marker."""

    colour: str
    marker: str


def attention_of(family: str) -> str:
    """What follows the family's kind: a key of :data:`MARKERS` and :data:`DASHES`."""
    return family.partition(", ")[2]


def family_style(family: str) -> tuple[str, str]:
    """Colour and dashes of a front over several series: the kind's, and the attention's."""
    attention = attention_of(family)
    return ELSEWHERE if attention == GENERATE else FAMILIES[family.partition(", ")[0]], DASHES[attention]


def series_styles(points: list[Point]) -> dict[str, SeriesStyle]:
    """A style for each series, in their order: the colour tells family and block length, the marker attention.

    Where block transformers of one attention differ in their variants, the marker tells these too.
    """
    firsts = {name: next(point for point in points if point.series == name) for name in series_of(points)}
    blocks = [point for point in firsts.values() if point.cell.block_length is not None]
    lengths = sorted({(point.kind, point.cell.block_length or 0) for point in blocks})
    return {name: _style(point, blocks, lengths) for name, point in firsts.items()}


def _style(point: Point, blocks: list[Point], lengths: list[tuple[str, int]]) -> SeriesStyle:
    markers = MARKERS[attention_of(point.family)]
    if point.cell.block_length is None:
        return SeriesStyle(family_style(point.family)[0], markers[-1 if point.kind == "pretrained" else 0])
    same = [other for other in blocks if attention_of(other.family) == attention_of(point.family)]
    turn = list(dict.fromkeys((other.kind, other.cell.variant) for other in same)).index(
        (point.kind, point.cell.variant)
    )
    colour = lengths.index((point.kind, point.cell.block_length))
    return SeriesStyle(COLOURS[colour % len(COLOURS)], markers[turn % len(markers)])


def short(value: float | None) -> str:
    """Three digits and an SI prefix: ``1.23M``, ``45.6K``, ``0.0123``; a dash for ``None``."""
    if value is None:
        return "-"
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:.3g}{prefix}" if abs(value) < 999.5 * factor else f"{value / factor:.0f}{prefix}"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def _dark_style() -> str:
    """For the end of an SVG file: other colours where the page around it, or the reader's system, is dark."""
    rules = [
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in (DARK | DARK_CHROME).items()
        for what in ("fill", "stroke")
    ]
    plain = f'text:not([style*="fill"]){{fill:{DARK_CHROME["#000000"]}}}'
    return f"<style>@media (prefers-color-scheme:dark){{{plain}{''.join(rules)}}}</style>"


DARK_STYLE = _dark_style()
