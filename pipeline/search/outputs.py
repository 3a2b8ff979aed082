"""What the files of a search and of a tuning have in common, made anew from the ledgers."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from pipeline.base.dominance import unbeaten
from pipeline.results.records import Environment
from pipeline.results.search import LOWER, TrialResult, Trials
from pipeline.search.feasibility import cost
from pipeline.search.ledger import Ledger, counts
from pipeline.search.problem import Problem

SHOWN = 3  # best trials of a search for one objective


def fields_of(ledger: Ledger) -> dict[str, Any]:
    """The fields of :class:`~pipeline.results.search.Trials`, from the ledger's storage."""
    problem, trials = ledger.problem, ledger.trials()
    finished = [_result(problem, trial) for trial in trials if counts(trial)]
    refused = [trial for trial in trials if trial.state == TrialState.PRUNED and not counts(trial)]
    return {
        "identity": problem.identity,
        "objectives": problem.objectives,
        "wanted": problem.trials,
        "infeasible": len(refused),
        "failed": sum("error" in trial.user_attrs for trial in trials),
        "trials": finished,
        "best": _best(finished, problem.objectives),
    }


def _result(problem: Problem, trial: FrozenTrial) -> TrialResult:
    measured = dict(trial.user_attrs["measured"])
    point = problem.point(trial.params)
    study, cell = problem.trial(point)
    return TrialResult(
        number=trial.number,
        point=point,
        cell=cell.name,
        variant=cell.variant,
        environment=Environment(**measured.pop("environment")),
        **measured,
        **dataclasses.asdict(cost(study, cell, problem.vocabulary)),
    )


def _best(trials: list[TrialResult], objectives: list[str]) -> list[int]:
    """The trials that no other one beats, best first; for one objective some more."""
    complete = [trial for trial in trials if trial.state == "complete"]
    ranked = sorted(complete, key=lambda trial: _costs(trial, objectives))
    if len(objectives) == 1:
        return [trial.number for trial in ranked[:SHOWN]]
    values = np.array([_costs(trial, objectives) for trial in ranked]).reshape(len(ranked), len(objectives))
    return [trial.number for trial, kept in zip(ranked, unbeaten(values), strict=True) if kept]


def _costs(trial: TrialResult, objectives: list[str]) -> tuple[float, ...]:
    return tuple(trial.objective(name) * (1 if LOWER[name] else -1) for name in objectives)


def csv_of(parts: Sequence[tuple[str, Trials]]) -> str:
    """The trials as a table; where there are several parts, each row begins with its part's name."""
    text = io.StringIO()
    plain = ("point", "environment")
    names = [field.name for field in dataclasses.fields(TrialResult) if field.name not in plain]
    keys = list(dict.fromkeys(key for _, trials in parts for key in trials.keys))
    head = ["model"] if any(part for part, _ in parts) else []
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*head, *names, *keys, "best"])
    for part, trials in parts:
        for trial in trials.trials:
            values = [getattr(trial, name) for name in names] + [trial.point.get(key) for key in keys]
            writer.writerow([*([part] if head else []), *values, trial.number in trials.best])
    return text.getvalue()
