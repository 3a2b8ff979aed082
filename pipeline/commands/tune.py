"""`python -m pipeline tune`: start a worker of the tuning, or show what it has found."""

from __future__ import annotations

import argparse

from pipeline import tracking
from pipeline.base.errors import UserError
from pipeline.base.paths import TUNE
from pipeline.results.search import RECIPES
from pipeline.search.table import tuning_table
from pipeline.study import Study
from pipeline.study.arguments import study_of
from pipeline.study.load import load_for_tuning
from pipeline.study.tune_checks import check_tunable

DESCRIPTION = """\
Tune the recipe of each model in tune.models of params.yaml, until tune.trials are finished for each. Start it several
times to share the work, and again after Ctrl-C or a kill to go on. Results lie in tune/.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("--show", action="store_true", help="bring the files and the table up to date and run nothing")


def run(arguments: argparse.Namespace) -> None:
    """Work on the tuning of the study that the command line names, or show it."""
    tune(study_of(arguments, load_for_tuning), work=not arguments.show)


def tune(study: Study, work: bool = True) -> None:
    """Be a worker of the study's tuning until it ends, then draw and print its recipes. Raises :class:`UserError`."""
    if study.tune is None:
        raise UserError("tune: params.yaml has no such section; docs/tuning.md shows one")
    check_tunable(study)
    from pipeline.analysis.figures.tuning import draw_tuning
    from pipeline.search.storage import storage_errors
    from pipeline.search.tuning import tune_worker

    with storage_errors(TUNE, study.tune.storage):
        worker = tune_worker(study)
        if work:
            with tracking.following(study.name, "tune", "pipeline.search.tracking"):
                worker.run()
        result = worker.save()
    drawings = draw_tuning(result, TUNE)
    print(tuning_table(result))
    if not any(model.trials for model in result.models):
        return
    print(f"\n{RECIPES}   the recipes, to include in params.yaml or to paste")
    for drawing in drawings:
        print(f"{TUNE / drawing.name}.svg   loss against each key")
