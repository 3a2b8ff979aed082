"""`python -m pipeline check`: whether a study is well-formed, and what it says in all."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from pipeline.base.paths import PARAMS
from pipeline.device import require_accelerator
from pipeline.evaluation.task_names import check_tasks
from pipeline.study import cells, check_dvc_keys
from pipeline.study.arguments import study_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--show", action="store_true", help="print every key as it counts, defaults too")


def run(arguments: argparse.Namespace) -> None:
    """Check the study that the command line means. Raises :class:`UserError`."""
    study = study_of(arguments)
    check_tasks(study.evaluate.tasks)
    if Path(arguments.params) == PARAMS:
        check_dvc_keys()
    require_accelerator(study.hardware)
    if arguments.show:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(study))))
    print(f"{arguments.params}: study {study.name!r} with {len(cells(study))} cells is well-formed")
