"""The allocation search: block transformers of other layers and widths, and what is written of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from pipeline.base.files import write_text
from pipeline.base.made_of import made_of
from pipeline.base.paths import SEARCH, TOKENS
from pipeline.data import Manifest
from pipeline.results.search import TABLE, VARIANTS, SearchResult, TrialResult, write_search
from pipeline.search.ledger import Ledger
from pipeline.search.outputs import csv_of, fields_of
from pipeline.search.problem import Params, Problem
from pipeline.search.storage import lock
from pipeline.search.worker import Worker
from pipeline.study import Cell, Study
from pipeline.study.pretraining import written
from pipeline.study.recipe_space import Point, choices, read
from pipeline.study.schema import Recipe, Variant
from pipeline.study.search_space import known_points, starting_cell, trial_study, trial_variant

ENOUGH = 4  # complete trials for an importance


class Allocation(Problem):
    """The study's search, as its section says."""

    folder = SEARCH
    at_random = 10

    def __init__(self, study: Study, manifest: Manifest) -> None:
        super().__init__(study, manifest.model_vocabulary)
        assert study.search is not None
        self.search = study.search
        self.identity = identity(study, manifest)
        self.varied = choices(self.search.space)
        self.trials, self.storage, self.seed = self.search.trials, self.search.storage, self.search.seed
        self.objectives = self.search.objectives
        self.limits = {key: value for key, value in vars(self.search.constraints).items() if value is not None}
        self.roofline = self.search.throughput == "roofline"

    def distributions(self, finished: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
        """The same choices from beginning to end."""
        return {key: distribution(values) for key, values in self.varied.items()}

    def known(self, finished: Sequence[FrozenTrial]) -> list[Params]:
        """Those under ``search.enqueue``."""
        return list(known_points(self.study))

    def point(self, params: Params) -> Point:
        """The parameters themselves, but for what the point's optimizer leaves unread."""
        point = {key: params[key] for key in self.varied}
        return read(written(self.study, starting_cell(self.study, point["block_length"])), point)

    def trial(self, point: Point) -> tuple[Study, Cell]:
        """A block transformer of a variant of its own."""
        return trial_study(self.study, point)


def search_worker(study: Study) -> Worker[SearchResult]:
    """A worker of the study's search. Raises :class:`UserError` where tokens are missing or the storage is."""
    return Worker([Allocation(study, Manifest.read(TOKENS))], _save)


def identity(study: Study, manifest: Manifest) -> str:
    """A hash of everything that makes trials comparable; a changed search begins anew, a longer one goes on."""
    search = study.search
    assert search is not None
    decisive = {
        "search": {key: value for key, value in made_of(search).items() if key not in ("trials", "storage", "enqueue")},
        "size": made_of(study.sizes[search.size]),
        "variant": made_of(study.variants[search.variant]),
        "pretrain": made_of(dataclasses.replace(study.pretrain, budgets=[])),
        "benchmark": made_of(study.benchmark),
        "label": study.hardware.label,
        "corpus": manifest.hash,
    }
    recipes = {name: made_of(recipe) for name, recipe in _starting_recipes(study).items()}
    decisive |= {"recipes": recipes} if recipes else {}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _starting_recipes(study: Study) -> dict[str, Recipe]:
    """The entries of ``recipes`` that trials start from, without how they were found."""
    assert study.search is not None
    models = [starting_cell(study, length).model for length in study.search.space.block_length]
    return {name: dataclasses.replace(recipe, tuning=None) for name, recipe in study.recipes.items() if name in models}


def distribution(values: list[Any]) -> BaseDistribution:
    """Evenly spaced whole numbers as such, whose order the sampler then knows; other choices as categories."""
    whole = all(type(value) is int for value in values)
    steps = {after - before for before, after in pairwise(values)} if whole else set()
    if len(steps) == 1:
        return IntDistribution(values[0], values[-1], step=steps.pop())
    return CategoricalDistribution(values)


def _save(ledgers: list[Ledger]) -> SearchResult:
    """Write results.json, trials.csv and variants.yaml."""
    (ledger,) = ledgers
    problem = ledger.problem
    assert isinstance(problem, Allocation)
    search = problem.search
    with lock(SEARCH, "results"):
        result = SearchResult(
            study=problem.study.name,
            setting=search.setting,
            throughput=search.throughput,
            size=search.size,
            importance=_importance(ledger.optuna, search.objectives),
            **fields_of(ledger),
        )
        write_search(result)
        write_text(TABLE, csv_of([("", result)]))
        write_text(VARIANTS, variants_yaml(problem.study, result))
    return result


def _importance(study: optuna.Study, objectives: list[str]) -> dict[str, dict[str, float]]:
    """Each key's share of every objective's variance, by fANOVA; nothing while the trials are too few."""
    if len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])) < ENOUGH:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = {}
    for index, name in enumerate(objectives):
        target = _objective(index)
        shares[name] = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
    return shares


def _objective(index: int) -> Any:
    return lambda trial: trial.values[index]


def variants_yaml(study: Study, result: SearchResult) -> str:
    """The best trials as a part of params.yaml: variants to paste under ``variants``, and what to put into the grid."""
    import yaml

    best = [trial for number in result.best for trial in result.trials if trial.number == number]
    lines = [f"# The best of {len(result.trials)} trials: paste into params.yaml, and name them in its grid."]
    lines += ["variants:"] if best else []
    for name in dict.fromkeys(trial.variant for trial in best):
        alike = [trial for trial in best if trial.variant == name]
        changed = _changed(trial_variant(study, alike[0].point), Variant())
        lines += [f"  # {_facts(trial, result.size)}" for trial in alike]
        lines += [f"  {line}" for line in yaml.safe_dump({name: changed}, sort_keys=False).splitlines()]
    return "\n".join(lines) + "\n"


def _facts(trial: TrialResult, size: str) -> str:
    facts = [f"trial {trial.number}", f"{trial.total_parameters:,} parameters"]
    facts += [f"loss {trial.loss:.4f}"] if trial.loss is not None else []
    facts += [f"{trial.tokens_per_second:,.0f} tokens/s"] if trial.tokens_per_second is not None else []
    return f"{', '.join(facts)}; grid.block: size {size}, block_length {trial.point['block_length']}"


def _changed(section: Any, plain: Any) -> dict[str, Any]:
    """The section without the keys that are as the schema has them, but with a kind that is not that of ``plain``."""
    keys: dict[str, Any] = {} if type(section) is type(plain) else {"kind": section.kind}
    for key, default in vars(type(section)()).items():
        value = getattr(section, key)
        changed = _changed(value, type(value)() if default is None else default) if _is_section(value) else value
        if changed != default and changed != {}:
            keys[key] = changed
    return keys


def _is_section(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
