"""Figures of where a model's loss comes from: training, position in the block, context, and what it finds there."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING

from pipeline.analysis.figures.canvas import Drawing, Figures, count_axis, directed, legend, line, panels, size_panels
from pipeline.analysis.figures.style import VANILLA, series_styles
from pipeline.analysis.rows.points import Point
from pipeline.results.metrics import LOSS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss_figures(points: list[Point]) -> list[Figures]:
    """All figures of this module that the points hold data for."""
    return [_curves(points), _block_positions(points), _contexts(points), _needles(points), _recall(points)]


def _curves(points: list[Point]) -> Figures:
    """Validation loss over training tokens, a panel per size; every seed a line."""
    drawn = [point for point in points if any(row.curve for row in point.rows)]
    if not drawn:
        return
    styles = series_styles(points)
    figure, sizes = size_panels(drawn)
    for axes, _, members in sizes:
        for point, row in [(member, row) for member in members for row in member.rows if row.curve]:
            losses = _learning_curve(row.curve)
            line(axes, losses, styles[point.series], point.series, markersize=3.5, markevery=max(len(losses) // 10, 1))
        axes.set_xlabel("Training tokens")
        count_axis(axes)
    sizes[0][0].set_ylabel("Validation loss (nats per token) (\N{LEFTWARDS ARROW} better)")
    legend(figure, *(axes for axes, _, _ in sizes))
    yield figure, Drawing("curves", "Loss while training", "Validation loss against training tokens, a panel per size.")


def _learning_curve(curve: dict[str, list[float]]) -> list[tuple[float, float]]:
    """Tokens and validation loss; training loss where the run never validated."""
    both = [
        [pair for pair in zip(curve["tokens"], curve[column], strict=True) if math.isfinite(pair[1])]
        for column in ("validation_loss", "train_loss")
    ]
    return both[0] or both[1]


def _block_positions(points: list[Point]) -> Figures:
    """Loss by position in the block (paper, figure 3d), a panel per size; vanilla's mean as a dotted line."""
    blocks = [point for point in points if len(point.rows[0].evaluate.loss_by_block_position) > 1]
    if not blocks:
        return
    styles = series_styles(points)
    figure, sizes = size_panels(blocks)
    for axes, size, members in sizes:
        for vanilla in (point for point in points if point.size == size and point.kind == "vanilla"):
            axes.axhline(
                LOSS.of(vanilla) or math.nan, linewidth=1.2, linestyle=":", color=VANILLA, label="vanilla, mean"
            )
        for point in members:
            line(axes, _by_position(point), styles[point.series], point.series)
        axes.set_xlabel("Position in the block")
        count_axis(axes)
    sizes[0][0].set_ylabel(directed(LOSS))
    legend(figure, *(axes for axes, _, _ in sizes))
    told = "Loss at each position of a block, a panel per size."
    yield figure, Drawing("block_position", "Loss by position in the block", told)


def _by_position(point: Point) -> list[tuple[float, float]]:
    """The mean over seeds at each position that has a target."""
    columns = zip(*(row.evaluate.loss_by_block_position for row in point.rows), strict=True)
    known = (
        (position, [loss for loss in losses if loss is not None]) for position, losses in enumerate(columns, start=1)
    )
    return [(position, sum(losses) / len(losses)) for position, losses in known if losses]


def _contexts(points: list[Point]) -> Figures:
    """Loss by tokens of context (paper, figure 4b), a figure per context length and a panel per size."""
    styles = series_styles(points)
    lengths = sorted({context.length for point in points for context in point.rows[0].evaluate.loss_by_context})
    for length in lengths:
        drawn = [point for point in points if _by_context(point, length)]
        figure, sizes = size_panels(drawn)
        for axes, _, members in sizes:
            for point in members:
                line(axes, _by_context(point, length), styles[point.series], point.series, markersize=4)
            axes.set_xlabel("Tokens of context")
            count_axis(axes)
        sizes[0][0].set_ylabel(directed(LOSS))
        legend(figure, *(axes for axes, _, _ in sizes))
        title = f"Loss by context, up to {length} tokens"
        yield figure, Drawing(f"context_{length}", title, "Loss by the number of tokens before the predicted one.")


def _by_context(point: Point, length: int) -> list[tuple[float, float]]:
    """(tokens of context at the bucket's middle, loss) of the first seed."""
    for measured in point.rows[0].evaluate.loss_by_context:
        if measured.length == length:
            ends = [*measured.starts[1:], length]
            middles = ((start + end - 1) / 2 for start, end in zip(measured.starts, ends, strict=True))
            return list(zip(middles, measured.losses, strict=True))
    return []


def _needles(points: list[Point]) -> Figures:
    """Needles found by depth and on average, a panel per prompt and a row per configuration (paper, tables 5 and 6)."""
    tested = [point for point in points if point.rows[0].evaluate.needle]
    prompts = list(dict.fromkeys(score.prompt for point in tested for score in point.rows[0].evaluate.needle))
    if not tested:
        return
    depths = sorted({score.depth for point in tested for score in point.rows[0].evaluate.needle})
    figure, axes = panels(len(prompts), width=5.6, height=0.32 * len(tested) + 1.2)
    means = []
    for panel, prompt in zip(axes, prompts, strict=True):
        shares = [[_found(point, prompt, depth) for depth in depths] for point in tested]
        shares = [[*row, sum(row) / len(row)] for row in shares]
        means += [f"{point.name} {row[-1]:.0%}" for point, row in zip(tested, shares, strict=True)]
        _heat_map(panel, shares)
        panel.set_xticks(range(len(depths) + 1), [*(f"{depth} %" for depth in depths), "mean"])
        panel.set_yticks(range(len(tested)), [point.name for point in tested])
        panel.set_title(f"{prompt} prompt")
        panel.set_xlabel("Depth of the needle")
    told = f"The share of needles found at each depth, a row per configuration. Means: {', '.join(means)}."
    yield figure, Drawing("needle", "Needle in a haystack", told)


def _recall(points: list[Point]) -> Figures:
    """Associative recall by the number of pairs, a panel per size; guessing as a dotted line."""
    asked = [point for point in points if any(row.evaluate.recall for row in point.rows)]
    if not asked:
        return
    styles = series_styles(points)
    figure, sizes = size_panels(asked)
    for axes, _, members in sizes:
        for point in members:
            scores = [score for row in point.rows for score in row.evaluate.recall]
            pairs = sorted({score.pairs for score in scores})
            means = [statistics.fmean(score.accuracy for score in scores if score.pairs == count) for count in pairs]
            line(axes, zip(map(float, pairs), means, strict=True), styles[point.series], point.series)
            axes.plot(pairs, [1 / count for count in pairs], ":", color="grey", linewidth=1, label="guessing")
        axes.set_xlabel("Pairs")
        count_axis(axes)
    sizes[0][0].set_ylabel("Queries answered (better \N{RIGHTWARDS ARROW})")
    legend(figure, *(axes for axes, _, _ in sizes))
    told = "The share of keys whose value a model finds likelier than those of all other pairs."
    yield figure, Drawing("recall", "Associative recall", told)


def _heat_map(axes: Axes, shares: list[list[float]]) -> None:
    """Shares from 0 to 1 as colours and in words."""
    axes.imshow(shares, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for row, column in itertools.product(range(len(shares)), range(len(shares[0]))):
        share = shares[row][column]
        colour = "#fefefe" if share < 0.5 else "#010101"  # not the white and black that dark figures swap
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color=colour)
    axes.axvline(len(shares[0]) - 1.5, color="#fefefe", linewidth=2)
    axes.grid(visible=False)


def _found(point: Point, prompt: str, depth: int) -> float:
    """The share over all seeds; nan where the depth was not tried."""
    scores = [
        score.accuracy
        for row in point.rows
        for score in row.evaluate.needle
        if (score.prompt, score.depth) == (prompt, depth)
    ]
    return sum(scores) / len(scores) if scores else math.nan
