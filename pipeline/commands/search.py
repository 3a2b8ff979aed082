"""`python -m pipeline search`: start a worker, or show what the search has found."""

from __future__ import annotations

import argparse

from pipeline import tracking
from pipeline.base.errors import UserError
from pipeline.base.paths import SEARCH
from pipeline.commands import on_slurm
from pipeline.results.search import VARIANTS
from pipeline.search.table import table
from pipeline.study import Study
from pipeline.study.arguments import study_of
from pipeline.study.schema import Search
from pipeline.study.search_checks import check_searchable

DESCRIPTION = """\
Look for good block transformers in search.space of params.yaml, until search.trials of them are finished. Start it
several times to share the work, and again after Ctrl-C or a kill to go on. Results lie in search/.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--show", action="store_true", help="bring the files and the table up to date and run nothing")
    on_slurm.add_worker_arguments(parser, either)


def run(arguments: argparse.Namespace) -> None:
    """Work on the search of the study that the command line names, or show it."""
    study = study_of(arguments)
    if not on_slurm.workers(arguments, "search", study, lambda: _section(study).storage):
        search(study, work=not arguments.show)


def search(study: Study, work: bool = True) -> None:
    """Be a worker of the study's search until it ends, then print its trials. Raises :class:`UserError`."""
    section = _section(study)
    from pipeline.search.allocation import search_worker
    from pipeline.search.storage import storage_errors

    with storage_errors(SEARCH, section.storage):
        worker = search_worker(study)
        if work:
            with tracking.following(study.name, "search", "pipeline.search.tracking"):
                worker.run()
        print(table(worker.save()))
    print(f"\n{VARIANTS}   the best trials, to paste into params.yaml; `dvc repro report` draws them")


def _section(study: Study) -> Search:
    """The study's section, once it is well-formed."""
    if study.search is None:
        raise UserError("search: params.yaml has no such section; docs/search.md shows one")
    check_searchable(study)
    return study.search
