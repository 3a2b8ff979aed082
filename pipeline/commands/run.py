"""`python -m pipeline run`: what `dvc repro` would bring up to date, with everything independent at the same time."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable

from pipeline.base.errors import UserError
from pipeline.base.paths import REPORT
from pipeline.commands import on_slurm
from pipeline.commands.plan import plan
from pipeline.execution.board import GOOD, Board, State, log_of
from pipeline.execution.display import Display
from pipeline.execution.estimate import Training
from pipeline.execution.processes import warded
from pipeline.execution.repository import Repository
from pipeline.execution.resources import Machine, gpus_of
from pipeline.execution.scheduler import Order, Scheduler
from pipeline.execution.stages import CHECK, Stages, with_needs
from pipeline.execution.stages import REPORT as REPORT_STAGE
from pipeline.study import Study, cells
from pipeline.study.load import check_dvc_keys, load_study
from pipeline.study.rules import choice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("cell", nargs="*", help="these cells and what they need; where left out, all and the report")
    add_no_benchmark(parser)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--dry", action="store_true", help="list what would run; only the stage check runs")
    on_slurm.add_arguments(parser, either)


def add_no_benchmark(parser: argparse.ArgumentParser) -> None:
    """The option that leaves benchmarks out."""
    told = "leave out benchmarks: a model is timed with one of its seeds, and losses need none (docs/methods.md)"
    parser.add_argument("--no-benchmark", dest="benchmark", action="store_false", help=told)


def run(arguments: argparse.Namespace) -> None:
    """Bring the study, or some cells, up to date on this machine.

    Raises :class:`UserError` at the end if stages have failed, KeyboardInterrupt if a signal stopped the run.
    """
    if arguments.cancel:
        on_slurm.cancel(on_slurm.STUDY)
        return
    repository = Repository()
    if arguments.status:
        on_slurm.show(repository)
        return
    study = load_study()
    check_dvc_keys()
    stages = chosen(repository.stages, study, arguments.cell, arguments.benchmark)
    if arguments.on == "slurm":
        on_slurm.start(study, repository, stages, lambda: _check(repository, Machine(()), stages), arguments.dry)
        return
    on_slurm.refuse_while_queued(on_slurm.STUDY)
    machine = Machine.of(study, gpus_of(study))
    with repository.alone(), warded(repository.root):
        if arguments.dry:
            _print_changed(repository, machine, stages)
        else:
            _run(repository, machine, study, stages)


def chosen(stages: Stages, study: Study, names: Iterable[str], benchmark: bool = True) -> Stages:
    """All stages, or those of these cells and what they need. Raises :class:`UserError` for an unknown cell.

    Without benchmarks there is no report, which DVC makes of all.
    """
    wanted, known = set(names), [cell.name for cell in cells(study)]
    for name in wanted:
        choice("cell", name, known)
    if wanted:
        stages = with_needs(stages, [stage.name for stage in stages.values() if stage.cell in wanted])
    left_out = () if benchmark else ("benchmark", REPORT_STAGE)
    return {name: stage for name, stage in stages.items() if stage.kind not in left_out}


def _run(repository: Repository, machine: Machine, study: Study, stages: Stages) -> None:
    trained = [cell for cell in cells(study) if cell.family != "pretrained"]
    trainings = {
        planned.cell: Training(planned.training_flops, planned.flops_to_go, planned.steps)
        for planned in plan(study, trained)
    }
    board = Board(stages)
    with Display(board, machine, trainings).showing() as show:
        scheduler = Scheduler(repository, machine, board, order_of(stages, study, trainings), show)
        scheduler.run()
    _finish(board, stopped=bool(scheduler.signals))


def order_of(stages: Stages, study: Study, trainings: dict[str, Training]) -> Order:
    """Trainings from the longest on, evaluations, benchmarks; a budget after the whole cell, whose trunk it shares."""
    later = {"evaluate": -1.0, "benchmark": -2.0}
    by_cell = {stage.cell: name for name, stage in stages.items() if stage.kind == "pretrain"}
    work = {name: later.get(stage.kind, 0.0) for name, stage in stages.items()}
    work |= {name: trainings[cell].to_go for cell, name in by_cell.items() if cell in trainings}
    budgets = [cell for cell in cells(study) if cell.budget is not None and cell.name in by_cell]
    after = {by_cell[cell.name]: [by_cell[cell.whole.name]] for cell in budgets if cell.whole.name in by_cell}
    return Order(work, after)


def _check(repository: Repository, machine: Machine, stages: Stages) -> None:
    checked = Board(with_needs(stages, [CHECK]))
    Scheduler(repository, machine, checked, Order(), lambda: None).run()
    _end_if_any_failed(checked)


def _print_changed(repository: Repository, machine: Machine, stages: Stages) -> None:
    """What is out of date, and what follows from it if its outputs change; `check` tells DVC what has been edited."""
    _check(repository, machine, stages)
    listed = repository.out_of_date(stages)
    for name, changed in listed.items():
        print(f"{name}  {'out of date' if changed else 'if what it needs comes out other than before'}")
    if not listed:
        print("everything is up to date")


def _finish(board: Board, stopped: bool) -> None:
    if stopped:
        raise KeyboardInterrupt("stopped; the same command goes on")
    if board.those(State.FAILED):
        _report_without(board)
    _end_if_any_failed(board)
    count = board.count()
    print(f"{sum(count[state] for state in GOOD)} stages are up to date, {count[State.DONE]} of them run now")
    if REPORT_STAGE in board.stages:
        print(f"{REPORT / 'index.html'}; python -m pipeline show prints its table")


def _report_without(board: Board) -> None:
    """The report on the cells that there are, which DVC takes no note of."""
    if REPORT_STAGE in board.stages and board.entries[CHECK].state in GOOD:
        subprocess.run([sys.executable, "-m", "stages.report", "--finished"])


def _end_if_any_failed(board: Board) -> None:
    failed, skipped = board.those(State.FAILED), board.those(State.SKIPPED)
    for name in failed:
        print(f"failed: {name}: {board.entries[name].why} ({log_of(name)})", file=sys.stderr)
    if skipped:
        print(f"skipped, since they need what failed: {', '.join(skipped)}", file=sys.stderr)
    if failed:
        raise UserError(f"{len(failed)} of {len(board.stages)} stages failed; the same command goes on with them")
