"""What the section ``search`` must fulfil."""

from __future__ import annotations

from pipeline.base.redact import redacted
from pipeline.study.pretraining import pretraining, training_steps, written
from pipeline.study.recipe_checks import check_schedule
from pipeline.study.recipe_space import SHORT, check_read, check_space, choices
from pipeline.study.rules import all_positive, choice, divides, require
from pipeline.study.schema import Search, Study
from pipeline.study.search_space import FROM_ZERO, KEYS, known_points, starting_cell, trial_study

OBJECTIVES = ("loss", "tokens_per_second")
THROUGHPUTS = ("measured", "roofline")


def check_search(study: Study) -> None:
    """Raise :class:`UserError` for a value of the section that no search can have; no section is fine.

    Whether it fits the rest of the study is for those who search: :func:`check_searchable`.
    """
    search = study.search
    if search is None:
        return
    choice("search.throughput", search.throughput, THROUGHPUTS)
    all_positive("search", search, ("trials", "tokens"))
    all_positive("search.constraints", search.constraints, vars(search.constraints))
    check_shared("search", search.storage, search.seed)
    check_space("search", study.pretrain, search.space)
    for key, values in choices(search.space).items():
        for value in values if key not in SHORT else []:
            least = 0 if key in FROM_ZERO else 1
            require(value >= least, f"search.space.{key}", value, f"it must be a whole number of at least {least}")


def check_shared(section: str, storage: str | None, seed: int) -> None:
    """Raise :class:`UserError` for a storage that would tell a password, or a seed below 0."""
    shown = redacted(storage or "")
    right = "params.yaml and dvc.lock are for all to read; leave user and password to the driver (~/.pgpass, ~/.my.cnf)"
    require("***" not in shown, f"{section}.storage", shown, right)
    require(seed >= 0, f"{section}.seed", seed, "a seed is 0 or more")


def check_searchable(study: Study) -> None:
    """Raise :class:`UserError` for the first thing in the study's search that does not fit the rest of the study."""
    search = study.search
    assert search is not None
    choice("search.size", search.size, study.sizes)
    choice("search.variant", search.variant, study.variants)
    choice("search.setting", search.setting, study.benchmark.settings)
    _check_objectives(study, search)
    _check_space(study, search)
    _check_enqueued(study, search)
    _check_steps(study, search)


def _check_objectives(study: Study, search: Search) -> None:
    right = f"name one or both of {', '.join(OBJECTIVES)}"
    named = search.objectives
    require(0 < len(named) == len(set(named)), "search.objectives", named, right)
    for name in named:
        choice("search.objectives", name, OBJECTIVES)
    if search.throughput == "roofline":
        sizes = study.benchmark.batch_sizes
        right = "search.throughput: roofline is taken at the largest of them, so name at least one"
        require(bool(sizes), "benchmark.batch_sizes", sizes, right)


def _check_space(study: Study, search: Search) -> None:
    varied, variant = choices(search.space), study.variants[search.variant]
    without = ", ".join(name for name, other in study.variants.items() if other.init is None) or "none"
    right = f"it has init, but trials start from random weights; the variants without init are: {without}"
    require(variant.init is None, "search.variant", search.variant, right)
    lengths = varied.get("block_length", [])
    require(bool(lengths), "search.space.block_length", lengths, "name at least one, such as [2, 4]")
    for length in lengths:
        divides("search.space.block_length", length, "pretrain.context_length", study.pretrain.context_length)
    for key, (_, part, name) in KEYS.items():
        keys = getattr(variant, part)
        right = f"it has no effect with {getattr(keys, 'kind', part)} (variants.{search.variant}); leave it out"
        require(key not in varied or hasattr(keys, name), f"search.space.{key}", varied.get(key), right)
    check_read("search", [written(study, starting_cell(study, length)) for length in lengths], search.space)


def _check_enqueued(study: Study, search: Search) -> None:
    varied = choices(search.space)
    for given in search.enqueue:
        for key in given:
            choice("search.enqueue", key, varied)
    for given, point in zip(search.enqueue, known_points(study), strict=True):
        for key, value in point.items():
            own = "" if key in given else "; it is the study's own: add it to the space, or name one in the point"
            right = f"it is none of the space's, {', '.join(map(str, varied[key]))}{own}"
            require(value in varied[key], f"search.enqueue.{key}", value, right)


def _check_steps(study: Study, search: Search) -> None:
    point = {key: values[0] for key, values in choices(search.space).items()}
    pretrain = pretraining(*trial_study(study, point))
    check_schedule(pretrain, training_steps(pretrain), "a trial of search.tokens")
