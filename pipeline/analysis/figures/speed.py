"""Figures of what generation speed depends on: batch, prompt and output length."""

from __future__ import annotations

from pipeline.analysis.figures.canvas import Drawing, Figures, legend, line, log_axis, size_panels
from pipeline.analysis.figures.style import series_styles
from pipeline.analysis.rows.points import Point, Row
from pipeline.results.metrics import readable, settings_of

LENGTHS = (("prompt", "new_tokens"), ("new_tokens", "prompt"))
WORDS = {"prompt": "prompt tokens", "new_tokens": "new tokens"}


def speed_figures(points: list[Point]) -> list[Figures]:
    """All figures of this module that the points hold data for."""
    return [_batches(points), *(_lengths(points, varied, fixed) for varied, fixed in LENGTHS)]


def _batches(points: list[Point]) -> Figures:
    """Tokens/s against batch for each setting, a panel per size."""
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
        drawn[0][0].set_ylabel(f"{readable(setting)} tokens/s (better \N{RIGHTWARDS ARROW})")
        legend(figure, *(axes for axes, _, _ in drawn))
        title = f"Throughput by batch, {readable(setting)}"
        told = "Generated tokens per second at each batch measured, a panel per size."
        yield figure, Drawing(f"batch_{setting}", title, told)


def _measured(row: Row, setting: str) -> list[tuple[float, float]]:
    if setting not in row.benchmark.settings:
        return []
    return sorted((timed.batch, timed.tokens_per_second) for timed in row.benchmark.settings[setting].measurements)


def _lengths(points: list[Point], varied: str, fixed: str) -> Figures:
    """Tokens/s against the prompt's or the output's length, the other one fixed (paper, figures 2c and 12)."""
    settings = (setting for point in points for setting in point.rows[0].benchmark.settings.values())
    for length in sorted({getattr(setting, fixed) for setting in settings}):
        yield from _at_length(points, varied, fixed, length)


def _at_length(points: list[Point], varied: str, fixed: str, length: int) -> Figures:
    drawn = [point for point in points if len(_by_length(point.rows[0], varied, fixed, length)) > 1]
    if not drawn:
        return
    styles = series_styles(points)
    figure, sizes = size_panels(drawn)
    for axes, _, members in sizes:
        for point in members:
            line(axes, _by_length(point.rows[0], varied, fixed, length), styles[point.series], point.series)
        log_axis(axes, "x", sorted({x for point in drawn for x, _ in _by_length(point.rows[0], varied, fixed, length)}))
        log_axis(axes, "y")
        axes.set_xlabel(WORDS[varied].capitalize())
    sizes[0][0].set_ylabel("Tokens/s (better \N{RIGHTWARDS ARROW})")
    legend(figure, *(axes for axes, _, _ in sizes))
    title = f"Throughput by {WORDS[varied]}, {length} {WORDS[fixed]}"
    told = f"{title}: generated tokens per second, a panel per size."
    yield figure, Drawing(f"length_{varied}_{length}", title, told)


def _by_length(row: Row, varied: str, fixed: str, length: int) -> list[tuple[float, float]]:
    settings = (setting for setting in row.benchmark.settings.values() if getattr(setting, fixed) == length)
    return sorted((getattr(setting, varied), setting.tokens_per_second) for setting in settings)
