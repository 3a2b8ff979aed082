"""`python -m pipeline clean`: the trainings that edits have set aside and the trunks of budgets, to list or remove."""

from __future__ import annotations

import argparse

from pipeline.base.errors import UserError
from pipeline.base.paths import SUPERSEDED, TRUNKS, checkpoint
from pipeline.study.superseded import Training, changes, kept, remove, training_in
from pipeline.study.trunks import Trunk, trunks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("cell", nargs="*", help="of these cells; of all where left out")
    parser.add_argument("--remove", action="store_true", help="delete them for good")


def run(arguments: argparse.Namespace) -> None:
    """List the trainings that are kept aside and the trunks, or remove them.

    Raises :class:`UserError` for a cell that has none.
    """
    everything: list[Training | Trunk] = [*kept(), *trunks()]
    known = {entry.cell for entry in everything}
    for name in arguments.cell:
        if name not in known:
            has = ", ".join(sorted(known)) or "none"
            raise UserError(f"cell {name!r} has no training in {SUPERSEDED} or {TRUNKS}; they have {has}")
    chosen = [entry for entry in everything if not arguments.cell or entry.cell in arguments.cell]
    for entry in chosen:
        line = _line(entry) if isinstance(entry, Training) else _trunk_line(entry)
        if arguments.remove:
            remove(entry) if isinstance(entry, Training) else entry.remove()
        print(line, flush=True)
    if not chosen:
        print(f"nothing is kept in {SUPERSEDED} or {TRUNKS}")
    elif not arguments.remove:
        size = sum(entry.bytes for entry in chosen)
        print(f"{len(chosen)} kept, {size / 1e6:,.1f} MB; --remove deletes them, the keys they had bring them back")


def _trunk_line(trunk: Trunk) -> str:
    return f"{trunk.folder}  trunk, after {', '.join(f'{step:,}' for step in trunk.steps)} steps"


def _line(training: Training) -> str:
    present = training_in(checkpoint(training.cell))
    differs = f"; against the present one: {changes(training.record, present.record)}" if present else ""
    return f"{training.folder}  {training.progress}{differs}"
