"""A search's trials, and a tuning's recipes, as tables of the terminal."""

from __future__ import annotations

from pipeline.results.search import LOWER, ModelTuning, SearchResult, TrialResult, Trials, TuneResult


def table(result: SearchResult) -> str:
    """The trials, best first, those of the front marked; and what did not count."""
    rows = [_row(trial, result) for trial in sorted(result.trials, key=lambda trial: _rank(trial, result))]
    head = ["trial", *map(_words, result.keys), "parameters", "train FLOPs", "loss", "tokens/s", ""]
    told = f"tokens/s: {result.setting}, {result.throughput}; loss: validation, nats per token"
    return "\n".join([*_aligned([head, *rows]), "", f"{_counted(result)}; {told}"])


def tuning_table(result: TuneResult) -> str:
    """Each model's best recipe so far, or the predicted one; what half and twice its rate cost; what did not count."""
    keys = list(dict.fromkeys(key for model in result.models for key in model.keys))
    head = ["model", *map(_words, keys), "loss", "half the rate", "twice", "at the edge"]
    rows = [_tuned_row(model, keys) for model in result.models]
    rows += [
        [
            prediction.model,
            *(_shown(prediction.point.get(key)) for key in keys),
            "predicted",
            "-",
            "-",
            _listed(prediction.at_edge),
        ]
        for prediction in result.predicted
    ]
    counted = [f"{model.model}: {_counted(model)}" for model in result.models]
    told = f"loss: validation, nats per token, after {result.tokens:,} tokens"
    return "\n".join([*_aligned([head, *rows]), "", *counted, told])


def _tuned_row(model: ModelTuning, keys: list[str]) -> list[str]:
    best = model.optimum
    if best is None or best.loss is None:
        return [model.model, *("-" for _ in keys), "-", "-", "-", ""]
    costs = ["-" if cost is None else f"+{cost:.3f}" for cost in (model.halved, model.doubled)]
    values = [_shown(best.point.get(key)) for key in keys]
    return [model.model, *values, f"{best.loss:.4f}", *costs, _listed(model.at_edge)]


def _rank(trial: TrialResult, result: SearchResult) -> tuple[bool, bool, float]:
    first = result.objectives[0]
    complete = trial.state == "complete"
    value = trial.objective(first) * (1 if LOWER[first] else -1) if complete else 0.0
    return not complete, trial.number not in result.best, value


def _row(trial: TrialResult, result: SearchResult) -> list[str]:
    notes = ["best"] if trial.number in result.best else [trial.state] if trial.state != "complete" else [""]
    return [
        str(trial.number),
        *(_shown(trial.point.get(key)) for key in result.keys),
        f"{trial.total_parameters:,}",
        f"{trial.training_flops:.2g}",
        "-" if trial.loss is None else f"{trial.loss:.4f}",
        "-" if trial.tokens_per_second is None else f"{trial.tokens_per_second:,.0f}",
        *notes,
    ]


def _counted(trials: Trials) -> str:
    counted = [f"{len(trials.trials)} of {trials.wanted} trials finished"]
    counted += [f"{trials.infeasible} infeasible points"] if trials.infeasible else []
    counted += [f"{trials.failed} failed"] if trials.failed else []
    return ", ".join(counted)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _words(key: str) -> str:
    return key.replace("_", " ")


def _listed(keys: list[str]) -> str:
    return ", ".join(map(_words, keys))


def _shown(value: int | float | str | None) -> str:
    return "-" if value is None else str(value)
