"""`python -m pipeline clean`: the trainings that edits have set aside, and how to remove them."""

from __future__ import annotations

import argparse

from pipeline.base.errors import UserError
from pipeline.base.paths import SUPERSEDED, checkpoint
from pipeline.study.superseded import Training, changes, kept, remove, training_in


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("cell", nargs="*", help="of these cells; of all where left out")
    parser.add_argument("--remove", action="store_true", help="delete them for good")


def run(arguments: argparse.Namespace) -> None:
    """List the trainings that are kept aside, or remove them. Raises :class:`UserError` for a cell that has none."""
    trainings = kept()
    known = {training.cell for training in trainings}
    for name in arguments.cell:
        if name not in known:
            has = ", ".join(sorted(known)) or "none"
            raise UserError(f"cell {name!r} has no training in {SUPERSEDED}; it has {has}")
    chosen = [training for training in trainings if not arguments.cell or training.cell in arguments.cell]
    for training in chosen:
        if arguments.remove:
            remove(training)
        print(_line(training), flush=True)
    size = sum(training.bytes for training in chosen) if not arguments.remove else 0
    if not chosen:
        print(f"nothing is kept in {SUPERSEDED}")
    elif not arguments.remove:
        print(f"{len(chosen)} kept, {size / 1e6:,.1f} MB; --remove deletes them, the keys they had bring them back")


def _line(training: Training) -> str:
    present = training_in(checkpoint(training.cell))
    differs = f"; against the present one: {changes(training.record, present.record)}" if present else ""
    return f"{training.folder}  {training.progress}{differs}"
