"""The time left, from measured rates, and the table."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from pipeline.execution.board import Board, State
from pipeline.execution.display import Display
from pipeline.execution.estimate import Left, Point, Training, last_point, span, time_left
from pipeline.execution.resources import Machine, Place
from pipeline.execution.stages import Stage

NAMES = [f"{kind}-x@{cell}" for kind in ("pretrain", "evaluate", "benchmark") for cell in "abcd"]
TRAININGS = {"a": Training(100.0, 100.0, 10), "b": Training(100.0, 100.0, 10), "c": Training(200.0, 100.0, 10)}


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    return Board({name: Stage(name, "", ()) for name in ["check", *NAMES]}, begun=1000.0)


def put(board: Board, name: str, state: State, seconds: float = 0.0) -> None:
    entry, now = board.entries[name], time.monotonic()
    entry.state, entry.place, entry.begun = state, Place(("1",)), now - seconds
    entry.ended = None if state is State.RUNNING else now


def curve(cell: str, *rows: str) -> None:
    path = Path("checkpoints") / cell / "curve.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("step,tokens,train_loss\n" + "\n".join(rows))


def test_the_last_whole_row_of_a_curve_tells_where_a_training_is(board: Board) -> None:
    assert last_point("a") is None
    curve("a")
    assert last_point("a") is None
    curve("a", "1,256,7.5", "2,512,6.25", "3,7")
    assert last_point("a") == Point(2, 6.25)
    curve("a", *(f"{step},{step * 256},{step / 1000}" for step in range(5000)), "")
    assert last_point("a") == Point(4999, 4.999)


def test_the_time_left_follows_from_what_the_run_has_measured(board: Board) -> None:
    two = Machine(("0", "1"))
    for kind in ("pretrain", "evaluate", "benchmark"):
        put(board, f"{kind}-x@d", State.CURRENT)
    assert time_left(board, two, TRAININGS) is None
    put(board, "pretrain-x@a", State.DONE, 10)  # 10 FLOPs per second
    left = time_left(board, two, TRAININGS)
    assert left is not None
    assert left == Left(pytest.approx(200 / 10 / 2), at_least=True)
    put(board, "pretrain-x@b", State.RUNNING, 5)
    curve("b", "4,0,3.5", "")  # 40 of its FLOPs, in 5 s
    left = time_left(board, two, TRAININGS)
    assert left is not None
    assert left.seconds == pytest.approx(160 * (15 / 140) / 2, rel=1e-3)
    put(board, "evaluate-x@a", State.DONE, 6)
    put(board, "benchmark-x@a", State.DONE, 4)
    put(board, "evaluate-x@b", State.RUNNING, 2)
    left = time_left(board, two, TRAININGS)
    assert left is not None
    assert left == Left(pytest.approx(160 * (15 / 140) / 2 + (4 + 6) / 2 + (4 + 4) / 2, rel=1e-3), at_least=False)
    for name in board.entries:
        put(board, name, State.DONE, 1)
    assert time_left(board, two, TRAININGS) == Left(0.0, at_least=False)


def test_a_training_that_has_only_just_gone_on_tells_nothing(board: Board) -> None:
    flops, steps, begun = 8.75e16, 3052, 308
    resumed = {"a": Training(flops, (steps - begun) / steps * flops, steps)}
    put(board, "pretrain-x@a", State.RUNNING, 5)
    curve("a", f"{begun},0,3.5", "")
    assert time_left(board, Machine(("0",)), resumed) is None


def test_the_table_shows_cells_by_stage_and_gpu_those_at_work_first(board: Board) -> None:
    from rich.console import Console

    put(board, "check", State.DONE, 3)
    put(board, "pretrain-x@a", State.DONE, 61)
    put(board, "pretrain-x@b", State.RUNNING, 5)
    put(board, "evaluate-x@c", State.FAILED, 5)
    curve("b", "4,0,3.5", "")
    console = Console(width=100, height=9, record=True, file=io.StringIO())
    console.print(Display(board, Machine(("1",)), TRAININGS)._table(console))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert lines == [
        "check: 3 s",
        "cell pretrain evaluate benchmark loss",
        "b step 4/10 5 s GPU 1 waiting waiting 3.500",
        "c waiting failed waiting",
        "a 1 min 01 s waiting waiting",
        "and 1 more cells",
        "0 s: 2 of 13 stages done, 1 failed, more than 1 min 15 s left",
    ]
    assert span(7265) == "2 h 01 min"
