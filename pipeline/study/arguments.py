"""The arguments that name a command's or a stage's study."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from pipeline.base.paths import PARAMS
from pipeline.study.cells import Cell, find_cell
from pipeline.study.load import load_study
from pipeline.study.schema import Study


def add_study_arguments(parser: argparse.ArgumentParser, *, params: bool = True) -> None:
    """``--set`` and, unless the study is always params.yaml, ``--params``."""
    if params:
        parser.add_argument("--params", default=PARAMS, metavar="FILE", help=f"the study; default {PARAMS}")
    else:
        parser.set_defaults(params=PARAMS)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the study for this run, such as pretrain.tokens=1000; repeatable",
    )


def study_of(arguments: argparse.Namespace, load: Callable[..., Study] = load_study) -> Study:
    """The study that the command line means. Raises :class:`UserError`."""
    return load(arguments.params, arguments.set)


def cell_of_stage(stage: str, description: str) -> tuple[Study, Cell]:
    """The study, and the cell that the stage's command line names. Raises :class:`UserError`."""
    parser = stage_parser(stage, description)
    parser.add_argument("cell", help="a cell's name, as `python -m pipeline plan` lists them")
    arguments = parser.parse_args()
    study = study_of(arguments)
    return study, find_cell(study, arguments.cell)


def stage_parser(stage: str, description: str) -> argparse.ArgumentParser:
    """What every stage takes: keys to change."""
    note = "`dvc repro` runs it as params.yaml has it; results made with --set are not those of params.yaml."
    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}", description=description, epilog=note)
    add_study_arguments(parser, params=False)
    return parser
