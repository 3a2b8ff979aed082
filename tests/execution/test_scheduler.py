"""Whole runs of a small pipeline: real processes, real DVC, GPUs that are only names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.execution.board import Board, State
from pipeline.execution.display import Display
from pipeline.execution.processes import FOLDER, RUN, warded
from pipeline.execution.repository import Repository
from pipeline.execution.resources import Machine
from pipeline.execution.scheduler import Order, Scheduler
from pipeline.execution.stages import with_needs
from tests.conftest import ROOT
from tests.execution.conftest import NOTHING, ran, status


def run(machine: Machine = Machine(()), order: Order = Order(), meanwhile: Callable[[], None] = lambda: None) -> Board:  # noqa: B008
    """A run of everything; ``meanwhile`` is called many times."""
    repository = Repository()
    board = Board(repository.stages)
    with repository.alone(), warded(repository.root):
        Scheduler(repository, machine, board, order, meanwhile).run()
    return board


def states(board: Board) -> dict[str, list[str]]:
    return {state.value: names for state in State if (names := sorted(board.those(state)))}


def tell(kind: str, cell: str, code: str) -> None:
    """Code for a stage to run first."""
    Path("told", f"{kind}-{cell}").write_text(code)


def of_the_run() -> list[psutil.Process]:
    """Processes of stages of this folder's runs."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if RUN in environment and environment.get(FOLDER) == str(Path.cwd()):
            found.append(process)
    return found


MEET = """
Path(f"{name}.here").touch()
while not all(Path(f"{each}.here").exists() for each in "ab"):
    time.sleep(0.01)
"""


def test_what_is_independent_runs_at_the_same_time_and_dvc_finds_nothing_to_do(pipeline: Path) -> None:
    tell("pretrain", "a", MEET)
    tell("pretrain", "b", MEET)
    assert states(run(Machine(("0", "7")))) == {"done": sorted(Repository().stages)}
    lines = ran()
    assert lines[:2] == ["check  -", "tokenize  -"]
    assert sorted(lines[2:4]) == ["pretrain a 0", "pretrain b 7"] or sorted(lines[2:4]) == [
        "pretrain a 7",
        "pretrain b 0",
    ]
    assert all(line.split()[-1] in "07" for line in lines[4:6])
    assert lines[6] == "report  -"
    assert status() == NOTHING
    assert states(run()) == {"done": ["check"], "up to date": sorted(set(Repository().stages) - {"check"})}
    assert "python stage.py pretrain a (GPU" in Path("logs/run/pretrain-x@a.log").read_text()


def test_longest_first_and_a_budget_after_the_cell_whose_trunk_it_shares(pipeline: Path) -> None:
    order = Order({"pretrain-x@b": 2.0, "pretrain-x@a": 1.0, "evaluate-x@a": -1.0, "evaluate-x@b": -1.0})
    run(Machine(()), order)
    assert ran("pretrain") == ["pretrain b -", "pretrain a -"]
    Path("a.txt").write_text("a 1")
    Path("b.txt").write_text("b 1")
    run(Machine(("0", "1")), Order({}, {"pretrain-x@a": ["pretrain-x@b"]}))
    assert [line.split()[1] for line in ran("pretrain")] == ["b", "a"]


def test_a_cell_that_fails_does_not_stop_the_others(pipeline: Path) -> None:
    tell("pretrain", "a", "print('error: out of memory with micro-batches of 4'); sys.exit(1)")
    board = run(Machine((), jobs=2))
    assert states(board) == {
        "done": ["check", "evaluate-x@b", "pretrain-x@b", "tokenize"],
        "failed": ["pretrain-x@a"],
        "skipped": ["evaluate-x@a", "report"],
    }
    assert board.entries["pretrain-x@a"].why == "out of memory with micro-batches of 4"
    assert board.entries["evaluate-x@a"].why == "pretrain-x@a"
    assert ran("pretrain a") == ["pretrain a -"], "it is not tried again"
    tell("pretrain", "a", "")
    assert states(run())["done"] == ["check", "evaluate-x@a", "pretrain-x@a", "report"]


def test_a_command_that_leaves_out_an_output_has_failed(pipeline: Path) -> None:
    tell("evaluate", "b", "sys.exit()")
    board = run()
    assert board.those(State.FAILED) == ["evaluate-x@b"]
    assert "results/evaluate/b.json" in board.entries["evaluate-x@b"].why


KILLED = """
import subprocess
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
if not Path("once").exists():
    Path("once").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_stage_that_somebody_kills_is_started_again_once(pipeline: Path) -> None:
    tell("pretrain", "a", KILLED)
    assert run().those(State.FAILED) == []
    assert ran("pretrain a") == ["pretrain a -"] * 2
    assert of_the_run() == [], "nor does what the stage started outlive it"
    Path("a.txt").write_text("a 1")
    tell("pretrain", "a", "os.kill(os.getpid(), signal.SIGKILL)")
    assert run().entries["pretrain-x@a"].why == "ended by SIGKILL, twice"


FAILS = """
from pipeline.base.command import command

@command
def main():
    Path("tries").open("a").write("x")
    if len(Path("tries").read_text()) < 3:
        raise RuntimeError("CUDA error: unspecified launch failure\\nCUDA errors may be reported later")

main()
"""


def test_a_stage_whose_gpu_fails_is_started_again(pipeline: Path) -> None:
    tell("pretrain", "a", FAILS)
    assert run().those(State.FAILED) == []
    assert ran("pretrain a") == ["pretrain a -"] * 3
    told = Path("logs/run/pretrain-x@a.log").read_text()
    assert told.count("error: the GPU failed (CUDA error: unspecified launch failure); run the same command") == 2
    assert "Traceback" not in told
    Path("a.txt").write_text("a 1")
    tell("pretrain", "a", "print('error: the GPU failed'); sys.exit(75)")
    assert run().entries["pretrain-x@a"].why == "the GPU failed"
    assert ran("pretrain a") == ["pretrain a -"] * 4


WAIT = """
def save(number, frame):
    Path("saved").write_text(signal.Signals(number).name)
    sys.exit(130)
signal.signal(signal.SIGINT, save)
Path("waits").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_lets_the_stages_save_and_the_next_run_goes_on(pipeline: Path, number: signal.Signals) -> None:
    tell("pretrain", "a", WAIT)
    sent: list[int] = []

    def interrupt() -> None:
        if Path("waits").exists() and not sent:
            sent.append(1)
            os.kill(os.getpid(), number)

    board = run(Machine((), jobs=2), meanwhile=interrupt)
    assert Path("saved").read_text() == "SIGINT"
    assert board.entries["pretrain-x@a"].state is State.STOPPED
    assert not board.those(State.FAILED, State.SKIPPED)
    tell("pretrain", "a", "")
    assert not run().those(State.FAILED, State.STOPPED)


def test_a_second_signal_kills(pipeline: Path) -> None:
    tell("pretrain", "a", "signal.signal(signal.SIGINT, signal.SIG_IGN); Path('waits').touch(); time.sleep(60)")
    begun = time.monotonic()

    def interrupt() -> None:
        if Path("waits").exists():
            os.kill(os.getpid(), signal.SIGINT)

    assert run(meanwhile=interrupt).entries["pretrain-x@a"].state is State.STOPPED
    assert time.monotonic() - begun < 50
    assert of_the_run() == []


def test_a_killed_run_leaves_nothing_running(pipeline: Path) -> None:
    tell("pretrain", "a", KILLED.partition("if not")[0] + "Path('waits').touch(); time.sleep(60)")
    code = "from tests.execution.test_scheduler import run; run()"
    driver = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while not Path("waits").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(of_the_run()) == 2
    driver.kill()
    driver.wait()
    while of_the_run():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    tell("pretrain", "a", "")
    assert not run().those(State.FAILED)
    assert status() == NOTHING


def test_a_part_of_the_study_leaves_the_rest_alone(pipeline: Path) -> None:
    repository = Repository()
    board = Board(with_needs(repository.stages, ["evaluate-x@b"]))
    Scheduler(repository, Machine(()), board, Order(), lambda: None).run()
    assert [line.split()[0] for line in ran()] == ["check", "tokenize", "pretrain", "evaluate"]


def test_lines_tell_what_happens(pipeline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell("evaluate", "a", "sys.exit('error: no such document')")
    repository = Repository()
    board = Board(repository.stages)
    with Display(board, Machine(()), {}).showing() as show:
        Scheduler(repository, Machine(()), board, Order(), show).run()
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "check runs (CPU; logs/run/check.log); 0 of 7 stages done"
    assert any(line.startswith("evaluate-x@a failed: no such document; ") for line in lines)
    assert any(line.startswith("report skipped: it needs evaluate-x@a; ") for line in lines)
    assert "5 of 7 stages done, 1 failed, 1 skipped" in lines[-1]
