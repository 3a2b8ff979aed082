"""How figures and page look: colours that colour-blind readers tell apart, a marker a series, numbers in short form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.analysis.rows.families import GENERATE, GROUPED
from pipeline.analysis.rows.points import Point, series_of

# Paul Tol's "bright" scheme and Okabe and Ito's orange: distinct under the common colour vision deficiencies, and each
# with a contrast of 3:1 or more to white.
VANILLA = "#222222"
SLATE = "#4b5d8a"
PRETRAINED = "#5f6368"
COLOURS = ("#0072b2", "#b5540a", "#00845e", "#aa3377", "#7a5195", "#8a6d00", "#00838f", "#c1121f")
DARK = {
    "#222222": "#e6e6e6",
    "#4b5d8a": "#a9b8e8",
    "#5f6368": "#a5abb3",
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
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
GREY = "#b8b8b8"

RC: Any = {
    "svg.hashsalt": "blockscale",
    "svg.fonttype": "none",
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


WHOLE = {  # models that are not made of blocks
    "vanilla": SeriesStyle(VANILLA, "o"),
    f"vanilla, {GROUPED}": SeriesStyle(SLATE, "p"),
    f"vanilla, {GENERATE}": SeriesStyle(PRETRAINED, "d"),
}


def family_colour(family: str) -> str:
    """What a front of several series is drawn in: its colour tells the attention, as it does for vanilla models."""
    return SLATE if family.endswith(GROUPED) else VANILLA


def series_styles(points: list[Point]) -> dict[str, SeriesStyle]:
    """A style for each series, in their order: a colour and a marker of its own, as long as there are enough.

    Past that the colour tells the variant and the marker the block length.
    """
    cells = {name: next(point.cell for point in points if point.series == name) for name in series_of(points)}
    blocks = {name: cell for name, cell in cells.items() if cell.block_length is not None}
    lengths = list(dict.fromkeys(cell.block_length for cell in blocks.values()))
    variants = list(dict.fromkeys(cell.variant for cell in blocks.values()))
    styles = {}
    for name, cell in cells.items():
        if name not in blocks:
            styles[name] = WHOLE.get(name, SeriesStyle(PRETRAINED, "*"))
            continue
        turn = list(blocks).index(name)
        few = len(blocks) <= len(COLOURS)
        shade, shape = (turn, turn) if few else (variants.index(cell.variant), lengths.index(cell.block_length))
        styles[name] = SeriesStyle(COLOURS[shade % len(COLOURS)], MARKERS[shape % len(MARKERS)])
    return styles


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


def on_dark(colour: str) -> str:
    """The series' colour for a dark background: the same hue, lighter."""
    return DARK[colour]
