"""`python -m pipeline tune`: start a worker of the tuning, or show what it has found."""

from __future__ import annotations

import argparse

from pipeline import tracking
from pipeline.base.errors import UserError
from pipeline.base.paths import TUNE
from pipeline.commands import on_slurm
from pipeline.results.search import RECIPES
from pipeline.search.table import tuning_table
from pipeline.study import Study
from pipeline.study.arguments import study_of
from pipeline.study.load import load_for_tuning
from pipeline.study.schema import Tune
from pipeline.study.tune_checks import check_tunable

DESCRIPTION = """\
Tune the recipe of each model in tune.models of params.yaml, until tune.trials are finished for each. Start it several
times to share the work, and again after Ctrl-C or a kill to go on. Results lie in tune/.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--show", action="store_true", help="bring the files and the table up to date and run nothing")
    on_slurm.add_worker_arguments(parser, either)


def run(arguments: argparse.Namespace) -> None:
    """Work on the tuning of the study that the command line names, or show it."""
    study = study_of(arguments, load_for_tuning)
    if not on_slurm.workers(arguments, "tune", study, lambda: _section(study).storage):
        tune(study, work=not arguments.show)


def tune(study: Study, work: bool = True) -> None:
    """Be a worker of the study's tuning until it ends, then draw and print its recipes. Raises :class:`UserError`."""
    section = _section(study)
    from pipeline.analysis.figures.tuning import draw_tuning
    from pipeline.search.storage import storage_errors
    from pipeline.search.tuning import tune_worker

    with storage_errors(TUNE, section.storage):
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


def _section(study: Study) -> Tune:
    """The study's section, once it is well-formed."""
    if study.tune is None:
        raise UserError("tune: params.yaml has no such section; docs/tuning.md shows one")
    check_tunable(study)
    return study.tune
