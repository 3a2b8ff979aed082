"""Figures of the copy probe: what is left of a span's loss where it stands a second time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.analysis.figures.canvas import Drawing, Figures, count_axis, legend, line, size_panels
from pipeline.analysis.figures.style import series_styles
from pipeline.analysis.rows.points import Point
from pipeline.results.probes import by_offset, copied
from pipeline.results.records import CopyScore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = list[tuple[float, float]]
DASHES = {"random": "-", "text": "--"}
LEFT = "Second copy's part of the first loss"


def copy_figures(points: list[Point]) -> Figures:
    """By offset modulo the block length, by distance, and by span; a panel per size. Every seed's texts count alike."""
    probed = [point for point in points if any(row.evaluate.copies for row in point.rows)]
    if not probed:
        return
    longest = max(point.cell.block_length or 1 for point in probed)
    yield _figure(
        probed,
        "copy_offset",
        "Copying by the offset between the copies",
        "Distance of the copies, modulo L",
        lambda point, scores: _by_offset(scores, point.cell.block_length or longest),
    )
    yield _figure(
        probed,
        "copy_distance",
        "Copying by distance",
        "Distance between the copies (tokens)",
        lambda _, scores: _grouped(scores, lambda score: 1 << (score.distance.bit_length() - 1)),
    )
    yield _figure(
        probed,
        "copy_span",
        "Copying by span",
        "Length of the span (tokens)",
        lambda _, scores: _grouped(scores, lambda score: score.span),
    )


def _figure(
    points: list[Point], name: str, title: str, across: str, curve: Callable[[Point, list[CopyScore]], Curve]
) -> tuple[Figure, Drawing]:
    styles = series_styles(points)
    figure, sizes = size_panels(points)
    for axes, _, members in sizes:
        for point in members:
            for kind, dashes in DASHES.items():
                scores = [score for row in point.rows for score in row.evaluate.copies if score.kind == kind]
                if scores:
                    entry = f"_{point.series}" if kind == "text" else point.series  # one in the legend for both
                    line(axes, curve(point, scores), styles[point.series], entry, linestyle=dashes)
        axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
        axes.set_xlabel(across)
        count_axis(axes)
    sizes[0][0].set_ylabel(LEFT)
    sizes[0][0].set_ylim(bottom=0)
    legend(figure, *(axes for axes, _, _ in sizes), title="solid: random tokens\ndashed: held-out text")
    told = f"{LEFT}: 0 where a model copies, 1 where it does not. Solid: random tokens; dashed: held-out text."
    return figure, Drawing(name, title, told)


def _by_offset(scores: list[CopyScore], block_length: int) -> Curve:
    return [(float(offset), copied(found)) for offset, found in by_offset(scores, block_length).items()]


def _grouped(scores: list[CopyScore], place: Callable[[CopyScore], int]) -> Curve:
    places = sorted({place(score) for score in scores})
    return [(float(at), copied(score for score in scores if place(score) == at)) for at in places]
