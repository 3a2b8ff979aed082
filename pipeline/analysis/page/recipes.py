"""What the page, the files and report.json say of recipes and training: text tables, recipes.csv, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.analysis.figures.style import short
from pipeline.analysis.page.tables import IDENTITY, TextTable, csv_text, identity
from pipeline.analysis.rows.families import slug
from pipeline.analysis.rows.groups import by_family
from pipeline.analysis.rows.points import Row
from pipeline.analysis.rows.training import loss_points, over_seeds
from pipeline.analysis.statistics import recipes, training
from pipeline.analysis.statistics.findings import Findings
from pipeline.analysis.statistics.recipes import ALWAYS, ModelRecipe
from pipeline.analysis.statistics.scaling import SeriesLaw
from pipeline.analysis.statistics.speedup import Matched
from pipeline.results.metrics import LOSS
from pipeline.study.schema import Tuning

FOUND = ("status", "by_trials_of", "trials", "tokens_a_trial", "at_edge", "halved", "doubled")


def section(findings: Findings) -> dict[str, Any]:
    """The page's section: how the recipes were found, what they are, and what training cost at equal loss."""
    return {
        "summary": [*recipes.summary(findings.recipes), *_shared(findings.recipes)],
        "table": _table(findings.recipes),
        "compute": compute_sentences(findings),
        "ratios": _ratios(findings.compute),
        "losses": _losses(findings.rows),
    }


def compute_sentences(findings: Findings) -> list[str]:
    """A sentence for each family of block transformers, against each vanilla one."""
    families = by_family(findings.points)
    seeds = min((len(point.rows) for point in findings.points), default=0)
    return [training.compute_words(matched, seeds) for matched in findings.compute if matched.first in families]


def _shared(models: Sequence[ModelRecipe]) -> list[str]:
    """What is said of every recipe and is the same in all."""
    names = [name for name in ALWAYS if models and name not in recipes.differing(models)]
    told = [(_words(name), _shown(name, models[0].keys()[name])) for name in names]
    listed = ", ".join(f"{words} {text}" for words, text in told if text != "-")
    return [f"Every model: {listed}."] if listed else []


def _table(models: Sequence[ModelRecipe]) -> TextTable:
    """The keys in which models differ, and how the recipes were found where any was; no column where neither is so."""
    names = recipes.differing(models)
    tuned = any(model.tuning for model in models)
    intervals = any(model.tuning and model.tuning.intervals for model in models)
    head = ["Model", *(_words(name).capitalize() for name in names)]
    head += ["Recipe", "By trials of", "Trials", "Tokens per trial", "Bracketed"] if tuned else []
    head += ["Half the rate costs", "Twice the rate costs"] if tuned else []
    head += ["95 % interval"] if intervals else []
    rows = [
        [
            model.model,
            *(_shown(name, model.keys()[name]) for name in names),
            *(_found(model) if tuned else []),
            *([_intervals(model.tuning)] if intervals else []),
        ]
        for model in models
    ]
    return TextTable("Recipes", head, rows if len(head) > 1 else [])


def _found(model: ModelRecipe) -> list[str]:
    tuning = model.tuning
    if tuning is None:
        return [model.status, *["-"] * 6]
    costs = ("-" if cost is None else f"{cost:+.3f}" for cost in (tuning.halved, tuning.doubled))
    tried = "-" if tuning.status.startswith("predicted") else "yes"
    bracketed = f"not in {', '.join(tuning.at_edge)}" if tuning.at_edge else tried
    return [model.status, ", ".join(tuning.of), str(tuning.trials), short(tuning.tokens), bracketed, *costs]


def _intervals(tuning: Tuning | None) -> str:
    known = tuning.intervals if tuning else {}
    return "; ".join(f"{_words(key)} {low:.3g} to {high:.3g}" for key, (low, high) in known.items()) or "-"


def _words(name: str) -> str:
    return name.replace("_", " ").replace(".", " ")


def _shown(name: str, value: Any) -> str:
    """A key's value as text, a dash where the recipe does not read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(short(item) if name == "tokens" else _shown(name, item) for item in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _ratios(compute: Sequence[Matched]) -> TextTable:
    rows = []
    for matched in compute:
        best = matched.best
        known = best is not None and best.low is not None and best.high is not None
        interval = f"{best.low:.3g} to {best.high:.3g}" if best and known else "-"
        ratio = (f"{best.value:.3g}", interval, f"{best.at:.3f}") if best else ("not reached", "-", "-")
        rows.append((matched.first, matched.second, *ratio, matched.remark))
    head = ("Family, block length or model", "Against", "Times the FLOPs", "95 % interval", "Loss", "Remark")
    return TextTable("Training FLOPs at equal loss", head, rows)


def _losses(rows: Sequence[Row]) -> TextTable:
    lines = [
        (model, short(point.tokens), short(point.flops), f"{point.loss:.3f}", str(seeds))
        for model, losses in loss_points(rows).items()
        for point, seeds in over_seeds(losses)
    ]
    head = ("Model", "Training tokens", "Training FLOPs", LOSS.label, "Seeds")
    return TextTable("Loss by what a model was trained on", head, lines)


def recipes_csv(rows: Sequence[Row]) -> str:
    """Of each cell that the study trains its recipe, how that was found, what it took, and how its curve ends."""
    trained = [(row, row.recipe) for row in rows if row.recipe is not None]
    names = list(recipes.keys_of(trained[0][1])) if trained else []
    records = []
    for row, recipe in trained:
        slope = training.end_slope(row)
        measured = (row.pretrain.steps, row.pretrain.tokens, row.pretrain.training_flops, LOSS.value(row))
        keys = (
            " ".join(map(str, value)) if isinstance(value, list) else value
            for value in recipes.keys_of(recipe).values()
        )
        records.append([*identity(row), *keys, *measured, slope and slope[0], *_columns(row.tuning)])
    head = [*IDENTITY, *names, "steps", "tokens", "training_flops", "loss", "end_slope", *FOUND]
    return csv_text(head, records)


def _columns(tuning: Tuning | None) -> list[Any]:
    """:data:`FOUND`."""
    if tuning is None:
        return [recipes.UNTUNED, *[None] * (len(FOUND) - 1)]
    of, edge = " ".join(tuning.of), " ".join(tuning.at_edge)
    return [tuning.status, of, tuning.trials, tuning.tokens, edge, tuning.halved, tuning.doubled]


def compute_numbers(compute: Sequence[Matched]) -> dict[str, dict[str, dict[str, float]]]:
    """Ratios of training FLOPs at the lowest loss that both reach: of whom, against which vanilla family."""
    ratios: dict[str, dict[str, dict[str, float]]] = {}
    for matched in compute:
        if matched.best is not None:
            ratios.setdefault(slug(matched.first), {})[slug(matched.second)] = matched.best.numbers()
    return ratios


def held_out_numbers(laws: Sequence[SeriesLaw]) -> list[dict[str, Any]]:
    """How far each law without its greatest x is from what was measured there."""
    return [
        {
            "series": f"{law.series}{law.at}",
            "x": law.x.key,
            "without": law.largest.name,
            "predicted": law.test.predicted,
            "low": law.test.low,
            "high": law.test.high,
            "before": law.test.before,
            "measured": law.test.observed,
            "miss": law.test.miss,
            "relative": law.test.relative,
        }
        for law in laws
        if law.test is not None
    ]
