"""`python -m pipeline COMMAND`: what there is to do around `dvc repro`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from pipeline import tracking
from pipeline.base.command import command
from pipeline.base.errors import UserError
from pipeline.base.paths import PARAMS, REPORT
from pipeline.commands import benchmark, check, clean, compare, export, generate, prefetch, run, search, tune, verify
from pipeline.commands.study import APART, describe_studies, run_study
from pipeline.device import require_accelerator
from pipeline.execution.noted import DVC_LOCK, is_uncommitted
from pipeline.search.tracking import sync_searches
from pipeline.study import cells, find_cell, load_study
from pipeline.study.arguments import add_study_arguments, study_of

PROGRAM = "python -m pipeline"
INTRODUCTION = """\
Scaling studies of vanilla and Block Transformers. params.yaml is the study, every key with its comment; docs/README.md
is the guide. Run from the repository root.
"""


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True)
class Command:
    """A command: its line in the map, examples of its use, and the function that runs it."""

    name: str
    help: str
    examples: tuple[str, ...]
    run: Callable[[argparse.Namespace], None]
    add_arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments


@command
def main() -> None:
    """Run the command of the command line."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [-h] COMMAND ...",
        description=f"{INTRODUCTION}\n{_map()}",
        epilog=f"`{PROGRAM} COMMAND --help` shows a command's options and an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # The map lists them, in groups, which argparse cannot.
    commands = parser.add_subparsers(prog=PROGRAM, metavar="COMMAND", required=True, help=argparse.SUPPRESS)
    for entry in (entry for group in GROUPS.values() for entry in group if isinstance(entry, Command)):
        added = commands.add_parser(
            entry.name,
            description=f"{entry.help[0].upper()}{entry.help[1:]}.",
            epilog="\n  ".join(["examples:", *entry.examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        entry.add_arguments(added)
        if entry.run not in (_study, _ui, run.run, compare.run):
            add_study_arguments(added)
        added.set_defaults(run=entry.run)
    return parser


def _map() -> str:
    """Every command in the order of use, a line each; those of make and DVC among them."""
    lines: list[str] = []
    for title, group in GROUPS.items():
        lines.append(f"{title}:")
        named = ((entry.name, entry.help) if isinstance(entry, Command) else entry for entry in group)
        lines += [f"  {name:<22}{what}" for name, what in named]
    return "\n".join(lines)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="its file's name without .yaml; left out: list the studies")
    parser.add_argument("cell", nargs="*", help="these cells, and a report on what is finished; left out: all")
    run.add_no_benchmark(parser)
    for section in APART:
        parser.add_argument(f"--{section}", action="store_true", help=f"run what its section {section} says too")


def _add_ui(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5000, help="default 5000")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["prefetch"])
    prefetch.add_arguments(parser)


def _add_tracking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["sync"], help="may be run any number of times")
    parser.add_argument("cell", nargs="?", help="one cell; all of the study's where left out")


def _plan(arguments: argparse.Namespace) -> None:
    from pipeline.commands.plan import plan, print_json, print_plan

    study = study_of(arguments)
    require_accelerator(study.hardware)
    planned = plan(study)
    (print_json if arguments.json else print_plan)(planned, sys.stdout)


def _show(arguments: argparse.Namespace) -> None:
    from pipeline.analysis.page.tables import terminal_table
    from pipeline.analysis.rows.load import load_rows
    from pipeline.analysis.statistics.findings import find

    findings = find(*load_rows(study_of(arguments)))
    print(terminal_table(findings))
    print("", findings.headline, *findings.further, sep="\n")
    for note in findings.notes:
        print(f"note: {note}")
    print()
    for name, what in (("index.html", "figures and table; opens in any browser"), ("results.csv", "every number")):
        if (REPORT / name).exists():
            print(f"{(REPORT / name).resolve()}   {what}")
    print("make ui   the runs in MLflow")
    if findings.missing:
        print("python -m stages.report --finished   the page of the cells that are done so far")
    if is_uncommitted(DVC_LOCK):
        add = f"git add {PARAMS} {DVC_LOCK} && git commit"
        print(f"{DVC_LOCK} is not committed: `{add}` keeps this state, and experiments begin with it")


def _study(arguments: argparse.Namespace) -> None:
    if arguments.name:
        asked = [section for section in APART if getattr(arguments, section)]
        run_study(arguments.name, arguments.cell, asked, arguments.benchmark)
        return
    described = describe_studies()
    for name, question in described:
        print(f"{name.ljust(max(len(name) for name, _ in described))}  {question}")


def _tracking(arguments: argparse.Namespace) -> None:
    study = study_of(arguments)
    names = [find_cell(study, arguments.cell).name] if arguments.cell else [cell.name for cell in cells(study)]
    synced = [tracking.sync_cell(study.name, name) for name in names]
    if not arguments.cell:
        synced += [sync_searches(study.name), tracking.sync_report(study.name)]
    if not all(synced):
        raise UserError(f"MLflow at {tracking.tracking_uri()} is behind, see above; run this again once it answers")


def _ui(arguments: argparse.Namespace) -> None:
    try:
        name = load_study(PARAMS).name
    except UserError:  # a study that is being edited still has runs to look at
        name = None
    tracking.serve_ui(arguments.port, name)


GROUPS: dict[str, list[Command | tuple[str, str]]] = {
    "before a run": [
        Command(
            "check",
            "check params.yaml and run nothing",
            (f"{PROGRAM} check", f"{PROGRAM} check --show --set pretrain.tokens=2000000"),
            check.run,
            check.add_arguments,
        ),
        Command(
            "plan",
            "every cell and what it will cost, before anything runs",
            (f"{PROGRAM} plan", f"{PROGRAM} plan --json --params studies/block_length.yaml"),
            _plan,
            _add_plan,
        ),
        Command(
            "benchmark",
            "measure cells' generation, trained or not",
            (
                f"{PROGRAM} benchmark --random-weights",
                f"{PROGRAM} benchmark block-m-4-base-0 --setting 8+64 --output speed.json",
            ),
            benchmark.run,
            benchmark.add_arguments,
        ),
        Command(
            "evaluate",
            "fetch zero-shot tasks' documents for machines without a network",
            (f"{PROGRAM} evaluate prefetch lambada_openai piqa --folder tasks",),
            prefetch.run,
            _add_evaluate,
        ),
    ],
    "run": [
        ("make repro", "the whole study, from nothing to the report; again to go on"),
        ("dvc repro", "what is out of date; dvc repro pretrain-block@CELL trains one cell"),
        Command(
            "run",
            "what is out of date, with all that is independent at the same time",
            (f"{PROGRAM} run", f"{PROGRAM} run block-m-4-base-0", f"{PROGRAM} run --on slurm"),
            run.run,
            run.add_arguments,
        ),
        Command(
            "study",
            "run one of studies/ in a folder of its own, or list them",
            (f"{PROGRAM} study", f"{PROGRAM} study block_length", f"{PROGRAM} study heads block-m-4-block2-0"),
            _study,
            _add_study,
        ),
        Command(
            "search",
            "look for good block transformers with Optuna, as params.yaml says",
            (f"{PROGRAM} search", f"{PROGRAM} search --show"),
            search.run,
            search.add_arguments,
        ),
        Command(
            "tune",
            "tune the models' recipes with Optuna, as params.yaml says",
            (f"{PROGRAM} tune", f"{PROGRAM} tune --show"),
            tune.run,
            tune.add_arguments,
        ),
    ],
    "look at the results": [
        Command(
            "show",
            "the table of the results that there are, and where to look next",
            (f"{PROGRAM} show",),
            _show,
        ),
        Command(
            "compare",
            "two studies or more beside each other, as tables and one page",
            (f"{PROGRAM} compare . ../other-study", f"{PROGRAM} compare . main --out comparison"),
            compare.run,
            compare.add_arguments,
        ),
        Command(
            "generate",
            "continue prompts with a trained cell",
            (
                f'{PROGRAM} generate block-m-4-base-0 --prompt "The state of the union"',
                f"{PROGRAM} generate vanilla-m-0 --file prompts.txt --temperature 0.8 --top-p 0.95",
            ),
            generate.run,
            generate.add_arguments,
        ),
        Command(
            "export",
            "write a trained cell as a folder that transformers loads",
            (f"{PROGRAM} export block-m-4-base-0 exported/block-m-4",),
            export.run,
            export.add_arguments,
        ),
        Command(
            "verify",
            "check that results, checkpoints and report are what the pipeline wrote",
            (f"{PROGRAM} verify",),
            verify.run,
        ),
        Command(
            "clean",
            "list the trainings that edits have set aside and budgets' trunks, or remove them",
            (f"{PROGRAM} clean", f"{PROGRAM} clean --remove"),
            clean.run,
            clean.add_arguments,
        ),
        Command("ui", "start the MLflow UI on 127.0.0.1", (f"{PROGRAM} ui --port 5001",), _ui, _add_ui),
        Command(
            "tracking",
            "bring MLflow up to date with the files on disk",
            (f"{PROGRAM} tracking sync", f"{PROGRAM} tracking sync vanilla-m-0"),
            _tracking,
            _add_tracking,
        ),
    ],
}
