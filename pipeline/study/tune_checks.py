"""What the section ``tune`` must fulfil."""

from __future__ import annotations

from collections import Counter
from functools import partial

from pipeline.study.cells import Cell
from pipeline.study.pretraining import origin, pretraining, training_steps, written
from pipeline.study.recipe_checks import check_schedule
from pipeline.study.recipe_space import Point, check_read, check_space, choices
from pipeline.study.rules import all_positive, choice, require
from pipeline.study.schema import Study, Tune
from pipeline.study.search_checks import check_shared
from pipeline.study.tune_space import groups, points, sources, trial_study, tunable, tuned_cell


def check_tune(study: Study) -> None:
    """Raise :class:`UserError` for a value of the section that no tuning can have; no section is fine.

    Whether it fits the rest of the study is for those who tune: :func:`check_tunable`.
    """
    tune = study.tune
    if tune is None:
        return
    all_positive("tune", tune, ("tokens", "trials", "rounds"))
    right = f"it is at most tune.trials ({tune.trials}), which the rounds share"
    require(tune.rounds <= tune.trials, "tune.rounds", tune.rounds, right)
    check_shared("tune", tune.storage, tune.seed)
    check_space("tune", study.pretrain, tune.space)


def check_tunable(study: Study) -> None:
    """Raise :class:`UserError` for the first thing in the study's tuning that does not fit the rest of the study."""
    tune = study.tune
    assert tune is not None
    _check_models(study, tune)
    tuned = [tuned_cell(study, first) for first, *_ in groups(tune)]
    right = "give choices of at least one key, such as {learning_rate: [4.0e-3, 8.0e-3, 1.6e-2]}"
    require(bool(choices(tune.space)), "tune.space", {}, right)
    check_read("tune", [written(study, cell) for cell in tuned], tune.space)
    for cell in tuned:
        _check_steps(study, cell)
        different = len(points(study, cell, tune.trials))
        right = f"tune.space has {different} different points for {cell.model}; add choices, or try fewer"
        require(different >= tune.trials, "tune.trials", tune.trials, right)
    _check_predicted(study, tune, tuned)


def _check_models(study: Study, tune: Tune) -> None:
    models, named = tunable(study), [name for group in groups(tune) for name in group]
    require(bool(named) and all(groups(tune)), "tune.models", tune.models, "name at least one model in each item")
    for name in named:
        choice("tune.models", name, models)
    for name in tune.predict:
        choice("tune.predict", name, models)
    for name, count in Counter(named + tune.predict).items():
        require(count == 1, "tune.models", name, "it stands twice in tune.models and tune.predict; leave one of them")


def _check_steps(study: Study, model: Cell) -> None:
    """Each batch size must fit with the shortest warm-up, and each warm-up with the smallest batch."""
    assert study.tune is not None
    varied = choices(study.tune.space)
    least: Point = {key: varied[key][0] for key in ("batch_size", "warmup_steps") if key in varied}
    for point in [least, *(least | {key: value} for key in least for value in varied[key])]:
        pretrain = pretraining(*trial_study(study, model, point))
        run = f"a trial of tune.tokens of {model.model} with batch_size {pretrain.batch_size}"
        check_schedule(pretrain, training_steps(pretrain), run, partial(_named, study, model, point))


def _named(study: Study, model: Cell, point: Point, key: str) -> str:
    return f"tune.space.{key}" if key in point else origin(study, model, key)


def _check_predicted(study: Study, tune: Tune, tuned: list[Cell]) -> None:
    models = tunable(study)
    for name in tune.predict:
        alike = sources(models[name], tuned)
        sizes = ", ".join(cell.model for cell in alike) or "none"
        right = f"it takes two tuned sizes of its kind, three for an interval; tune.models has {sizes}"
        require(len(alike) >= 2, "tune.predict", name, right)
