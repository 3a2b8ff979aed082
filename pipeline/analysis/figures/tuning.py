"""The figure of a tuning: loss against each tuned key, a panel per key, a line per model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.analysis.figures.canvas import Drawing, legend, line, log_axis, panels, save
from pipeline.analysis.figures.search import words
from pipeline.analysis.figures.style import COLOURS, MARKERS, RC, VANILLA, SeriesStyle
from pipeline.results.search import ModelTuning, TrialResult, TuneResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOGARITHMIC = ("learning_rate", "matrix_learning_rate", "batch_size", "initialization_std")


def draw_tuning(result: TuneResult, folder: Path) -> list[Drawing]:
    """Draw ``curves``; nothing where no key has two values."""
    from matplotlib import rc_context

    models = [model for model in result.models if model.complete]
    keys = [key for key in dict.fromkeys(key for model in models for key in model.keys) if _varies(models, key)]
    if not keys:
        return []
    with rc_context(RC):
        figure, drawn = panels(len(keys))
        for axes, key in zip(drawn, keys, strict=True):
            _panel(axes, key, models)
        for axes in drawn[:: 2 if len(keys) == 4 else 3]:
            axes.set_ylabel("Validation loss (nats per token)")
        legend(figure, *drawn)
        told = f"Least validation loss of the trials with each value, {result.tokens:,} tokens per trial. "
        told += "Open: every trial with that value was stopped early, at this loss. "
        return [save(figure, Drawing("curves", "Loss against each tuned key", told + _best(models)), folder)]


def curve(trials: list[TrialResult], key: str) -> dict[Any, float]:
    """Each value of a key that one of the trials has, in order, with the least loss of these."""
    best: dict[Any, float] = {}
    for trial in trials:
        if key in trial.point and trial.loss is not None:
            value = trial.point[key]
            best[value] = min(best.get(value, trial.loss), trial.loss)
    return dict(sorted(best.items()))


def _varies(models: list[ModelTuning], key: str) -> bool:
    return any(len(curve(model.complete, key)) > 1 for model in models)


def _panel(axes: Axes, key: str, models: list[ModelTuning]) -> None:
    for number, model in enumerate(models):
        style, least = _style(models, number), curve(model.complete, key)
        line(axes, least.items(), style, model.model)
        if model.optimum is not None and key in model.optimum.point:
            best: Any = model.optimum.point[key]
            line(axes, [(best, least[best])], style, "_best", markersize=10)
        stopped = curve([trial for trial in model.trials if trial.state == "pruned"], key)
        alone = [(value, loss) for value, loss in stopped.items() if value not in least]
        line(axes, alone, style, "_stopped", linestyle="", markerfacecolor="none")
    axes.set_xlabel(words(key).capitalize())
    values: list[Any] = sorted({trial.point[key] for model in models for trial in model.trials if key in trial.point})
    if key in LOGARITHMIC:
        log_axis(axes, "x", values if len(values) <= 5 else None)


def _style(models: list[ModelTuning], number: int) -> SeriesStyle:
    """Vanilla models in one colour, block transformers in the others; a marker each."""
    markers = [marker for markers in MARKERS.values() for marker in markers]
    blocks = [model.model for model in models if not model.model.startswith("vanilla-")]
    name, marker = models[number].model, markers[number % len(markers)]
    return SeriesStyle(COLOURS[blocks.index(name) % len(COLOURS)] if name in blocks else VANILLA, marker)


def _best(models: list[ModelTuning]) -> str:
    sentences = []
    for model in models:
        best = model.optimum
        if best is not None:
            point = ", ".join(f"{words(key)} {value}" for key, value in best.point.items())
            sentences.append(f"{model.model}: {point}")
    return f"Best, drawn larger: {'; '.join(sentences)}."
