"""Tuning: the recipes of one model after the other, and what is written of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from pipeline.base.errors import UserError
from pipeline.base.files import write_text
from pipeline.base.made_of import made_of
from pipeline.base.paths import TOKENS, TUNE
from pipeline.data import Manifest
from pipeline.results.search import RECIPES, TUNED, TUNED_TABLE, ModelTuning, Prediction, TuneResult, write_search
from pipeline.search.feasibility import cost
from pipeline.search.ladder import open_sides, rung
from pipeline.search.ledger import Ledger
from pipeline.search.optima import Optimum, at_edge, cost_of_rate, predict
from pipeline.search.outputs import csv_of, fields_of
from pipeline.search.problem import Params, Problem
from pipeline.search.recipes import recipes_yaml
from pipeline.search.storage import lock
from pipeline.search.trial import run_trial
from pipeline.search.worker import Run, Worker
from pipeline.study import Cell, Study, model_config
from pipeline.study.causes import keys_of
from pipeline.study.pretraining import over, written
from pipeline.study.recipe_checks import check_recipe
from pipeline.study.recipe_space import NUMBERS, Point, override, read, value_of
from pipeline.study.tune_space import groups, recipe_hash, sources, trial_study, tunable, tuned_cell, varied


class Tuning(Problem):
    """One model's recipe, or a group's: points of ``tune.space``, numbers by their rung on the ladder of choices."""

    folder = TUNE

    def __init__(self, study: Study, group: list[str], manifest: Manifest) -> None:
        super().__init__(study, manifest.model_vocabulary)
        assert study.tune is not None
        self.tune = study.tune
        self.group, self.model = group, tuned_cell(study, group[0])
        self.varied = varied(study, self.model)
        self.identity = identity(study, self.model, self.varied, manifest)
        self.trials, self.storage, self.seed = self.tune.trials, self.tune.storage, self.tune.seed
        self.at_random = self.trials // 2
        self.objectives = ["loss"]
        self.limits: dict[str, float] = {}
        self.roofline = False

    def distributions(self, finished: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
        """The choices, and those beyond them that earlier rounds have asked for."""
        drawn: dict[str, BaseDistribution] = {}
        known = self.known(finished)
        for key, values in self.varied.items():
            if key in NUMBERS:
                asked = [params[key] for params in known if key in params]
                drawn[key] = IntDistribution(min([0, *asked]), max([len(values) - 1, *asked]))
            else:
                drawn[key] = CategoricalDistribution(values)
        return drawn

    def known(self, finished: Sequence[FrozenTrial]) -> list[Params]:
        """The recipe that the model has, as far as the choices hold it; then what each round but the last left open."""
        share = math.ceil(self.trials / self.tune.rounds)
        over = [finished[:end] for end in range(share, self.trials, share) if len(finished) >= end]
        return [*self._own(), *(params for round_ in over for params in self._open(round_))]

    def _own(self) -> list[Params]:
        recipe, params = written(self.study, self.model), {}
        for key, values in self.varied.items():
            value = value_of(recipe, key)
            if value in values:
                params[key] = values.index(value) if key in NUMBERS else value
        return [params] if params else []

    def _open(self, finished: Sequence[FrozenTrial]) -> list[Params]:
        """The best point so far, each key at an edge of what was tried moved one rung on."""
        complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
        if not complete:
            return []
        best = min(complete, key=lambda trial: trial.values[0])
        reads = self.point(best.params)
        tried = [{key: trial.params[key] for key in self.point(trial.params)} for trial in finished]
        moved = [
            best.params | {key: best.params[key] + side}
            for key in NUMBERS
            if key in reads
            for side in open_sides(best.params, tried, key)
        ]
        return [params for params in moved if self._exists(params)]

    def _exists(self, params: Params) -> bool:
        """Whether the ladders hold these rungs, with values that a recipe may have."""
        if any(rung(self.varied[key], params[key]) is None for key in params if key in NUMBERS):
            return False
        try:
            check_recipe(over(written(self.study, self.model), override(self.point(params))))
        except UserError:
            return False
        return self.feasible(self.point(params))

    def point(self, params: Params) -> Point:
        """The values at these rungs, but for the keys that the point's optimizer leaves unread."""
        point = {key: rung(self.varied[key], at) if key in NUMBERS else at for key, at in params.items()}
        return read(written(self.study, self.model), {key: value for key, value in point.items() if value is not None})

    def trial(self, point: Point) -> tuple[Study, Cell]:
        """The model, trained on ``tune.tokens``."""
        return trial_study(self.study, self.model, point)


def identity(study: Study, model: Cell, varied: dict[str, list[Any]], manifest: Manifest) -> str:
    """A hash of everything that makes trials comparable.

    Keys of the space count as their choices alone, so that a recipe that the tuning found may stand in ``recipes``.
    """
    first: Point = {key: values[0] for key, values in varied.items()}
    trial, cell = trial_study(study, model, first)
    # How often a trial validates follows from the rest, and changes no loss.
    measured = dataclasses.replace(trial.pretrain, validate_every=study.pretrain.validate_every)
    trial = dataclasses.replace(trial, pretrain=measured)
    decisive = {
        "model": model.model,
        "space": varied,
        "keys": keys_of(trial, cell, model_config(trial, cell, manifest.model_vocabulary)),
        "recipe": made_of(written(trial, cell)),
        "corpus": manifest.hash,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def tune_worker(study: Study, run: Run = run_trial) -> Worker[TuneResult]:
    """A worker of the study's tuning. Raises :class:`UserError` where tokens are missing or the storage is."""
    assert study.tune is not None
    manifest = Manifest.read(TOKENS)
    return Worker([Tuning(study, group, manifest) for group in groups(study.tune)], _save, run)


def _save(ledgers: list[Ledger]) -> TuneResult:
    """Write results.json, trials.csv and recipes.yaml; before a trial is finished those of an earlier tuning stay."""
    study = ledgers[0].problem.study
    assert study.tune is not None
    with lock(TUNE, "results"):
        models = [_tuned(ledger) for ledger in ledgers]
        result = TuneResult(
            study=study.name,
            tokens=study.tune.tokens,
            seed=study.tune.seed,
            models=models,
            predicted=_predicted(study, models, ledgers[0].problem.vocabulary),
        )
        if any(model.trials for model in models):
            write_search(result, TUNED)
            write_text(TUNED_TABLE, csv_of([(model.model, model) for model in models]))
            write_text(RECIPES, recipes_yaml(result, partial(_hash, study)))
    return result


def _hash(study: Study, model: str, point: Point) -> str:
    """What the recipe ``point`` of the model was found for."""
    return recipe_hash(*trial_study(study, tunable(study)[model], point))


def _tuned(ledger: Ledger) -> ModelTuning:
    problem = ledger.problem
    assert isinstance(problem, Tuning)
    model = ModelTuning(
        model=problem.group[0], shared=problem.group[1:], at_edge=[], halved=None, doubled=None, **fields_of(ledger)
    )
    best = model.optimum
    if best is None:
        return model
    return dataclasses.replace(
        model,
        at_edge=at_edge(best, model.trials, problem.varied),
        halved=cost_of_rate(best, model.trials, 0.5),
        doubled=cost_of_rate(best, model.trials, 2.0),
    )


def _predicted(study: Study, models: list[ModelTuning], vocabulary: int) -> list[Prediction]:
    """Those whose tuned models are all finished."""
    assert study.tune is not None
    optima = {
        model.model: Optimum(model.model, best.non_embedding_parameters, best.point, model.at_edge)
        for model in models
        if model.finished and (best := model.optimum) is not None
    }
    tuned, predictions = [tuned_cell(study, model.model) for model in models], []
    for name in study.tune.predict:
        cell = tunable(study)[name]
        of = [source.model for source in sources(cell, tuned)]
        if all(model in optima for model in of):
            size = cost(study, cell, vocabulary).non_embedding_parameters
            predictions.append(predict(name, size, [optima[model] for model in of]))
    return predictions
