"""A search's trials as the table of the terminal."""

from __future__ import annotations

from pipeline.results.search import LOWER, SearchResult, TrialResult


def table(result: SearchResult) -> str:
    """The trials, best first, those of the front marked; and what did not count."""
    rows = [_row(trial, result) for trial in sorted(result.trials, key=lambda trial: _rank(trial, result))]
    keys = list(result.trials[0].point) if result.trials else []
    head = ["trial", *(key.replace("_", " ") for key in keys), "parameters", "train FLOPs", "loss", "tokens/s", ""]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join([*(line.rstrip() for line in lines), "", _summary(result)])


def _rank(trial: TrialResult, result: SearchResult) -> tuple[bool, bool, float]:
    first = result.objectives[0]
    complete = trial.state == "complete"
    value = trial.objective(first) * (1 if LOWER[first] else -1) if complete else 0.0
    return not complete, trial.number not in result.best, value


def _row(trial: TrialResult, result: SearchResult) -> list[str]:
    notes = ["best"] if trial.number in result.best else [trial.state] if trial.state != "complete" else [""]
    return [
        str(trial.number),
        *(str(value) for value in trial.point.values()),
        f"{trial.total_parameters:,}",
        f"{trial.training_flops:.2g}",
        "-" if trial.loss is None else f"{trial.loss:.4f}",
        "-" if trial.tokens_per_second is None else f"{trial.tokens_per_second:,.0f}",
        *notes,
    ]


def _summary(result: SearchResult) -> str:
    counted = [f"{len(result.trials)} of {result.wanted} trials finished"]
    counted += [f"{result.infeasible} infeasible points"] if result.infeasible else []
    counted += [f"{result.failed} failed"] if result.failed else []
    return f"{', '.join(counted)}; tokens/s: {result.setting}, {result.throughput}; loss: validation, nats a token"
