"""The search's files, made anew from the ledger: the record, its table, and the best trials as variants."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.base.dominance import unbeaten
from pipeline.base.files import write_text
from pipeline.results.records import Environment
from pipeline.results.search import LOWER, TABLE, VARIANTS, SearchResult, TrialResult, write_search
from pipeline.search.feasibility import cost
from pipeline.search.ledger import Ledger, counts
from pipeline.search.storage import lock
from pipeline.study import Study
from pipeline.study.schema import Variant
from pipeline.study.search_space import point_variant, trial_study

SHOWN = 3  # best trials of a search for one objective
ENOUGH = 4  # complete trials for an importance


def save(study: Study, ledger: Ledger, vocabulary: int) -> SearchResult:
    """Write results.json, trials.csv and variants.yaml."""
    with lock("results"):
        result = collect(study, ledger, vocabulary)
        write_search(result)
        write_text(TABLE, _csv(result))
        write_text(VARIANTS, variants_yaml(study, result))
    return result


def collect(study: Study, ledger: Ledger, vocabulary: int) -> SearchResult:
    """The search's record, from its storage."""
    search = ledger.search
    trials = ledger.trials()
    finished = [_result(study, trial, ledger, vocabulary) for trial in trials if counts(trial)]
    refused = [trial for trial in trials if trial.state == TrialState.PRUNED and not counts(trial)]
    return SearchResult(
        study=study.name,
        identity=ledger.identity,
        objectives=search.objectives,
        setting=search.setting,
        throughput=search.throughput,
        size=search.size,
        wanted=search.trials,
        infeasible=len(refused),
        failed=sum("error" in trial.user_attrs for trial in trials),
        trials=finished,
        best=_best(finished, search.objectives),
        importance=_importance(ledger.optuna, search.objectives),
    )


def _result(study: Study, trial: FrozenTrial, ledger: Ledger, vocabulary: int) -> TrialResult:
    measured = dict(trial.user_attrs["measured"])
    point = {key: trial.params[key] for key in ledger.varied}
    _, cell = trial_study(study, point)
    assert cell.variant is not None
    return TrialResult(
        number=trial.number,
        point=point,
        cell=cell.name,
        variant=cell.variant,
        environment=Environment(**measured.pop("environment")),
        **measured,
        **dataclasses.asdict(cost(study, point, vocabulary)),
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


def _importance(study: optuna.Study, objectives: list[str]) -> dict[str, dict[str, float]]:
    """Each key's share of every objective's variance, by fANOVA; nothing while the trials are too few."""
    if len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])) < ENOUGH:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = {}
    for index, name in enumerate(objectives):
        target = _objective(index)
        found[name] = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
    return found


def _objective(index: int) -> Any:
    return lambda trial: trial.values[index]


def _csv(result: SearchResult) -> str:
    text = io.StringIO()
    plain = ("point", "environment")
    keys = list(result.trials[0].point) if result.trials else []
    names = [field.name for field in dataclasses.fields(TrialResult) if field.name not in plain]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *keys, "best"])
    for trial in result.trials:
        values = [getattr(trial, name) for name in names]
        writer.writerow([*values, *trial.point.values(), trial.number in result.best])
    return text.getvalue()


def variants_yaml(study: Study, result: SearchResult) -> str:
    """The best trials as a part of params.yaml: variants to paste under ``variants``, and what to put into the grid."""
    import yaml

    assert study.search is not None
    base = study.variants[study.search.variant]
    best = [trial for number in result.best for trial in result.trials if trial.number == number]
    lines = [f"# The best of {len(result.trials)} trials: paste into params.yaml, and name them in its grid."]
    lines += ["variants:"] if best else []
    for trial in best:
        text = yaml.safe_dump({trial.variant: _changed(point_variant(base, trial.point), Variant())}, sort_keys=False)
        lines += [f"  # {_facts(trial)}"]
        lines += [f"  # grid.block: size {result.size}, block_length {trial.point['block_length']}"]
        lines += [f"  {line}" for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def _facts(trial: TrialResult) -> str:
    facts = [f"trial {trial.number}", f"{trial.total_parameters:,} parameters"]
    facts += [f"loss {trial.loss:.4f}"] if trial.loss is not None else []
    facts += [f"{trial.tokens_per_second:,.0f} tokens/s"] if trial.tokens_per_second is not None else []
    return ", ".join(facts)


def _changed(section: Any, plain: Any) -> dict[str, Any]:
    """The section without the keys that are as the schema has them, but with a kind that is not that of ``plain``."""
    found: dict[str, Any] = {} if type(section) is type(plain) else {"kind": section.kind}
    for key, default in vars(type(section)()).items():
        value = getattr(section, key)
        changed = _changed(value, default) if dataclasses.is_dataclass(default) else value
        if changed != default and changed != {}:
            found[key] = changed
    return found
