"""Zero-shot tasks: which metric of each tells models apart, and which accuracies are no better than guessing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from pipeline.results.metrics import Metric, Records, task_metric
from pipeline.results.records import GOLD, GOLD_BITS, TaskScore

APART = 2.0
"""The :func:`_separation` from which a metric tells rows apart."""
CERTAIN = 1.96
"""Standard errors that 95 % of a normal distribution lie within."""
FEW = 3
"""Cells that a sentence names instead of counting them."""
GUESSES = f"Accuracies within {CERTAIN} standard errors of guessing"
GUESS = "°"
"""What marks one in a table."""


def main_task_metrics(rows: Sequence[Records]) -> list[Metric]:
    """One metric per task that tells the rows apart: for short tables and for figures.

    It is the task's usual metric if that does, or if none does; else the one of :data:`GOLD` that does so best.
    """
    return [task_metric(task, _telling(task, scores, rows)) for task, scores in _whole_tasks(rows).items()]


def steady_task_metrics(rows: Sequence[Records]) -> list[Metric]:
    """Each task's usual metric and the bits per byte of its right answers: the same whatever the numbers are."""
    return [
        task_metric(task, score)
        for task, scores in _whole_tasks(rows).items()
        for score in (_usual(scores), *(score for score in scores if score == GOLD_BITS))
    ]


def is_guess(row: Records, metric: Metric) -> bool:
    """Whether it is an accuracy as near to chance as guessing comes in 95 of 100 tries on as many documents."""
    score = next((scored for scored in row.evaluate.tasks if f"{scored.task}_{scored.metric}" == metric.key), None)
    if score is None or score.chance is None or metric.value(row) is None:
        return False
    return abs(score.value - score.chance) <= CERTAIN * math.sqrt(score.chance * (1 - score.chance) / score.documents)


def at_chance(rows: Sequence[Records]) -> str:
    """One sentence: for how many rows each task's usual metric is a guess; nothing where none is."""
    told = []
    for metric in (task_metric(task, _usual(scores)) for task, scores in _whole_tasks(rows).items()):
        scored = [row for row in rows if metric.value(row) is not None]
        guesses = [row.evaluate.cell.name for row in scored if is_guess(row, metric)]
        if guesses:
            told.append(f"{metric.label}: {_which(guesses, [row.evaluate.cell.name for row in scored])}")
    return f"{GUESSES}: {'; '.join(told)}." if told else ""


def _which(some: Sequence[str], every: Sequence[str]) -> str:
    others = [name for name in every if name not in some]
    if not others:
        return "every cell"
    if len(some) > FEW:
        return f"{len(some)} of {len(every)} cells" if len(others) > FEW else f"all cells but {', '.join(others)}"
    return ", ".join(some)


def _whole_tasks(rows: Iterable[Records]) -> dict[str, list[str]]:
    """The metrics of each task.

    Of a group that was scored as a whole, such as BLiMP, the members are left out: those whose names begin with its.
    """
    scores: dict[str, dict[str, None]] = {}
    for score in (score for row in rows for score in row.evaluate.tasks):
        scores.setdefault(score.task, {})[score.metric] = None
    return {
        task: list(metrics)
        for task, metrics in scores.items()
        if not any(task.startswith(f"{group}_") for group in scores)
    }


def _usual(scores: Sequence[str]) -> str:
    """A task's accuracy where it has one, else the first metric that lm-eval gives it."""
    return "acc" if "acc" in scores else scores[0]


def _telling(task: str, scores: Sequence[str], rows: Sequence[Records]) -> str:
    usual = _usual(scores)
    apart = {score: _separation(task, score, rows) for score in (usual, *(other for other in scores if other in GOLD))}
    best = max(apart, key=lambda score: apart[score])
    return usual if apart[usual] >= APART or apart[best] < APART else best


def _separation(task: str, score: str, rows: Iterable[Records]) -> float:
    """The rows' standard deviation over the root mean square of their standard errors: about 1 where all is noise."""
    scores = (_score(row, task, score) for row in rows if not row.pretrain.diverged)
    known = [(scored.value, scored.stderr) for scored in scores if scored is not None and scored.stderr is not None]
    if len(known) < 2:
        return 0.0
    spread = statistics.stdev(value for value, _ in known)
    error = math.sqrt(statistics.fmean(error**2 for _, error in known))
    return spread / error if error else 0.0


def _score(row: Records, task: str, score: str) -> TaskScore | None:
    return next((scored for scored in row.evaluate.tasks if (scored.task, scored.metric) == (task, score)), None)
