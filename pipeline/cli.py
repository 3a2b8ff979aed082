"""`python -m pipeline COMMAND`: what there is to do around `dvc repro`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipeline import studies, tracking
from pipeline.benchmark import cli as benchmark_cli
from pipeline.command import command
from pipeline.errors import UserError
from pipeline.evaluation import prefetch
from pipeline.evaluation.task_names import check_tasks
from pipeline.generation import cli as generate_cli
from pipeline.paths import PARAMS, REPORT
from pipeline.search import cli as search_cli
from pipeline.search.tracking import sync_search
from pipeline.study import cells, check_dvc_keys, find_cell, load_study

DESCRIPTION = """\
Scaling studies of vanilla and Block Transformers. The study is params.yaml; `dvc repro` runs it.
"""


@command
def main() -> None:
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=DESCRIPTION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = commands.add_parser("check", help="check params.yaml and run nothing")
    check.set_defaults(run=_check)

    plan = commands.add_parser("plan", help="every cell and what it will cost, before anything runs")
    plan.add_argument("--json", action="store_true", help="print JSON instead of a table")
    plan.set_defaults(run=_plan)

    verify = commands.add_parser(
        "verify", help="check that results, checkpoints and report are what the pipeline wrote"
    )
    verify.set_defaults(run=_verify)

    show = commands.add_parser("show", help="the table of results, and where to look next")
    show.set_defaults(run=_show)

    ui = commands.add_parser("ui", help="start the MLflow UI on 127.0.0.1")
    ui.add_argument("--port", type=int, default=5000)
    ui.set_defaults(run=_ui)

    evaluate = commands.add_parser("evaluate", help="fetch zero-shot tasks' documents for machines without a network")
    evaluate.add_argument("action", choices=["prefetch"])
    prefetch.add_arguments(evaluate)
    evaluate.set_defaults(run=prefetch.run)

    generate = commands.add_parser("generate", help="continue prompts with a trained cell")
    generate_cli.add_arguments(generate)
    generate.set_defaults(run=generate_cli.run)

    benchmark = commands.add_parser("benchmark", help="measure one cell's generation, trained or not")
    benchmark_cli.add_arguments(benchmark)
    benchmark.set_defaults(run=benchmark_cli.run)

    search = commands.add_parser("search", help="look for good block transformers with Optuna, as params.yaml says")
    search_cli.add_arguments(search)
    search.set_defaults(run=search_cli.run)

    _add_tracking(commands)
    for subparser in commands.choices.values():
        subparser.add_argument("--params", default=PARAMS, metavar="FILE", help=f"the study; default {PARAMS}")

    study = commands.add_parser("study", help="run one of studies/ in a folder of its own, or list them")
    study.add_argument("name", nargs="?", help="its file's name without .yaml; left out: list the studies")
    study.add_argument("--search", action="store_true", help="run the allocation search of its section search too")
    study.set_defaults(run=_study)
    return parser


def _add_tracking(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sync = commands.add_parser("tracking", help="bring MLflow up to date with the files on disk")
    sync.add_argument("action", choices=["sync"], help="may be run any number of times")
    sync.add_argument("cell", nargs="?", help="one cell; all of the study's where left out")
    sync.set_defaults(run=_tracking)


def _check(arguments: argparse.Namespace) -> None:
    study = load_study(arguments.params)
    check_tasks(study.evaluate.tasks)
    if Path(arguments.params) == PARAMS:
        check_dvc_keys()
    print(f"{arguments.params}: study {study.name!r} with {len(cells(study))} cells is well-formed")


def _plan(arguments: argparse.Namespace) -> None:
    from pipeline.plan import plan, print_json, print_plan

    planned = plan(load_study(arguments.params))
    (print_json if arguments.json else print_plan)(planned, sys.stdout)


def _verify(arguments: argparse.Namespace) -> None:
    from pipeline.verify import verify

    checks = failed = 0
    for check in verify(load_study(arguments.params)):
        checks += 1
        failed += bool(check.problems)
        print(f"{'FAILED' if check.problems else 'ok'}  {check.name}", flush=True)
        for problem in check.problems:
            print(f"        {problem}", flush=True)
    if failed:
        raise UserError(f"{failed} of {checks} checks failed")


def _show(arguments: argparse.Namespace) -> None:
    from pipeline.analysis.findings import find
    from pipeline.analysis.table import load_rows
    from pipeline.analysis.tables import terminal_table

    findings = find(load_rows(load_study(arguments.params)))
    print(terminal_table(findings.rows, findings.fronts))
    print("", findings.headline, *findings.further, sep="\n")
    for note in findings.notes:
        print(f"note: {note}")
    print(f"\n{REPORT.resolve() / 'index.html'}   figures and table; opens in any browser")
    print(f"{REPORT.resolve() / 'results.csv'}   every number")
    print("make ui   the runs in MLflow")


def _study(arguments: argparse.Namespace) -> None:
    if arguments.name:
        studies.run(arguments.name, arguments.search)
        return
    described = studies.describe()
    for name, question in described:
        print(f"{name.ljust(max(len(name) for name, _ in described))}  {question}")


def _tracking(arguments: argparse.Namespace) -> None:
    study = load_study(arguments.params)
    names = [find_cell(study, arguments.cell).name] if arguments.cell else [cell.name for cell in cells(study)]
    synced = [tracking.sync_cell(study.name, name) for name in names]
    if not arguments.cell:
        synced += [sync_search(study.name), tracking.sync_report(study.name)]
    if not all(synced):
        raise UserError(f"MLflow at {tracking.tracking_uri()} is behind, see above; run this again once it answers")


def _ui(arguments: argparse.Namespace) -> None:
    tracking.serve_ui(arguments.port)
