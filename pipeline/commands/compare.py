"""`python -m pipeline compare`: studies beside each other, as tables and one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import UserError
from pipeline.base.files import write_text

if TYPE_CHECKING:
    from pipeline.analysis.statistics.compare import Side

OUT = Path("comparison")
MOST_KEYS = 20
FEW = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "study",
        nargs="+",
        help="two or more: a folder that a study was run in (. is this one), a git revision of this repository, "
        "or the name of an MLflow experiment",
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help=f"where to write; default {OUT}")


def run(arguments: argparse.Namespace) -> None:
    """Print the tables; write index.html, models.csv and models.tex."""
    if len(set(arguments.study)) < 2:
        raise UserError(f"compare {' '.join(arguments.study)}: give two studies or more that differ")
    if arguments.out.is_file():
        raise UserError(f"--out {arguments.out}: it is a file; name a folder")
    from pipeline.analysis.page import comparison
    from pipeline.analysis.page.tables import latex
    from pipeline.commands.compare_sources import read_sides

    sides = read_sides(list(dict.fromkeys(arguments.study)))
    _print_tables(sides)
    written = {
        "index.html": (comparison.render_comparison(sides), "plot and tables; opens in any browser"),
        "models.csv": (comparison.models_csv(sides), "every number"),
        "models.tex": (latex(comparison.models_table(sides)), "the table of models for LaTeX"),
    }
    for name, (text, what) in written.items():
        write_text(arguments.out / name, text)
        print(f"{(arguments.out / name).resolve()}   {what}")


def _print_tables(sides: list[Side]) -> None:
    """What the page shows, as far as a terminal has room, and on stderr what to know before comparing."""
    from pipeline.analysis.page import comparison
    from pipeline.analysis.page.tables import in_columns
    from pipeline.analysis.statistics.compare import verdict

    by, keys = verdict(sides), comparison.keys_table(sides)
    tables = (comparison.models_table(sides, brief=True), comparison.shared_table(sides, by))
    for table, most in ((tables[0], None), (tables[1], None), (keys, MOST_KEYS)):
        if table.rows:
            print(f"{table.title}:", "", *in_columns([table.head, *table.rows[:most]]), "", sep="\n")
    if len(keys.rows) > MOST_KEYS:
        print(f"and {len(keys.rows) - MOST_KEYS} keys more, which the page has\n")
    sys.stdout.flush()
    for warning in by.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for side in (side for side in sides if side.missing):
        print(f"warning: {side.label}: results are missing: {_names(side)}", file=sys.stderr)


def _names(side: Side) -> str:
    """Of the cells that lack results: the first few with the stage, and how many more there are."""
    names = [f"{lacking.cell} ({lacking.stage})" for lacking in side.missing]
    more = [f"{len(names) - FEW} more"] if len(names) > FEW else []
    return ", ".join(names[:FEW] + more)
