"""The report's figures of an allocation search, where one has been run: front, history, importance of each key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.analysis.figures.canvas import Drawing, Figures, legend, log_axis, panels, save
from pipeline.analysis.figures.style import BLOCK, GREY, RC
from pipeline.results.metrics import readable
from pipeline.results.search import LOWER, SearchResult, TrialResult, read_search

FRONT = BLOCK


def draw_search(study_name: str, folder: Path) -> list[Drawing]:
    """Draw the search of that study; nothing where there is none, or no trial of it is complete."""
    from matplotlib import rc_context

    result = read_search()
    if result is None or result.study != study_name or not result.complete:
        return []
    with rc_context(RC):
        drawn = (*_front(result), *_history(result), *_importance(result))
        return [save(figure, drawing, folder) for figure, drawing in drawn]


def label(objective: str, result: SearchResult) -> str:
    """An objective as an axis's label, with its unit."""
    if objective == "loss":
        return "Validation loss (nats per token)"
    return f"{readable(result.setting)} tokens/s ({result.throughput})".capitalize()


def words(key: str) -> str:
    """A key of the search's space or an objective, as words."""
    return "tokens/s" if key == "tokens_per_second" else key.replace("_", " ")


def _front(result: SearchResult) -> Figures:
    """Loss against tokens/s: the trials that no other one beats, joined, and the rest in grey."""
    if len(result.objectives) < 2:
        return
    figure, (axes,) = panels(1, width=7.6, height=4.6)
    best = [trial for number in result.best for trial in result.trials if trial.number == number]
    beaten = [trial for trial in result.complete if trial not in best]
    axes.plot(*_points(beaten), "o", color=GREY, label="beaten by another trial")
    axes.plot(*_points(sorted(best, key=_rate)), "o--", color=FRONT, label="front")
    for trial in best:
        at = (_rate(trial), trial.objective("loss"))
        axes.annotate(str(trial.number), at, xytext=(6, -11), textcoords="offset points", fontsize=8)
    axes.set_xlabel(label("tokens_per_second", result))
    axes.set_ylabel(label("loss", result))
    log_axis(axes, "x")
    title = f"Search: {len(result.complete)} trials"
    axes.set_title(title)
    legend(figure, axes)
    told = "; ".join(f"{trial.number}: {trial.cell}" for trial in best)
    yield figure, Drawing("search_front", title, f"Validation loss against tokens/s. No other trial beats {told}.")


def _history(result: SearchResult) -> Figures:
    """Each objective in the order of the trials, with the best so far."""
    for objective in result.objectives:
        figure, (axes,) = panels(1, width=7.6, height=3.6)
        values = [(trial.number, trial.objective(objective)) for trial in result.complete]
        axes.plot([number for number, _ in values], [value for _, value in values], "o", color=GREY, label="trial")
        steps = list(_best_so_far(values, LOWER[objective]))
        axes.step(*zip(*steps, strict=True), where="post", color=FRONT, label="best so far")
        axes.set_xlabel("Trial")
        axes.set_ylabel(label(objective, result))
        title = f"Search history: {words(objective)}"
        axes.set_title(title)
        legend(figure, axes)
        told = f"{label(objective, result)} by trial; the best is {steps[-1][1]:.4g}."
        yield figure, Drawing(f"search_history_{objective}", title, told)


def _best_so_far(values: list[tuple[int, float]], lower: bool) -> Iterator[tuple[int, float]]:
    best = values[0][1]
    for number, value in values:
        best = min(best, value) if lower else max(best, value)
        yield number, best


def _importance(result: SearchResult) -> Figures:
    """Each key's share of an objective's variance among the trials (fANOVA), a panel an objective."""
    if not result.importance:
        return
    figure, drawn = panels(len(result.importance))
    keys = sorted(next(iter(result.importance.values())))
    for axes, (objective, shares) in zip(drawn, result.importance.items(), strict=True):
        axes.barh([words(key) for key in keys], [shares[key] for key in keys], color=FRONT)
        axes.set_xlim(0, 1)
        axes.set_title(words(objective).capitalize())
        axes.set_xlabel("Share of the variance")
    title = "What decides a trial"
    told = f"Shares by fANOVA over {len(result.complete)} trials; few trials make them rough. " + "; ".join(
        f"{words(objective)}: " + ", ".join(f"{words(key)} {share:.0%}" for key, share in shares.items())
        for objective, shares in result.importance.items()
    )
    yield figure, Drawing("search_importance", title, told)


def _points(trials: list[TrialResult]) -> tuple[list[float], list[float]]:
    return [_rate(trial) for trial in trials], [trial.objective("loss") for trial in trials]


def _rate(trial: TrialResult) -> float:
    return trial.objective("tokens_per_second")
