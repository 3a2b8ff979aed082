"""How far trainings are and how long the rest will take, by rates that stages have measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.base.paths import checkpoint
from pipeline.execution.board import Board, State
from pipeline.execution.resources import Machine
from pipeline.results.curve import last_row

UNSETTLED = (State.WAITING, State.RUNNING)
ONE_BY_ONE = Machine(())
"""How `dvc repro` runs the stages."""


@dataclass(frozen=True)
class Training:
    """What a cell's training costs: ``flops`` in all and ``to_go`` of them when the run began, in so many ``steps``."""

    flops: float
    to_go: float
    steps: int

    def left(self, step: int | None) -> float:
        """FLOPs to go after that step."""
        return self.to_go if step is None else min(self.to_go, self.flops * (1 - step / max(self.steps, 1)))


@dataclass(frozen=True)
class Point:
    """The last row of a training's curve."""

    step: int
    loss: float


@dataclass(frozen=True)
class Work:
    """What is to be done: training FLOPs, and evaluations and benchmarks by the seconds that each has run already."""

    flops: float
    evaluate: Sequence[float] = ()
    benchmark: Sequence[float] = ()


@dataclass(frozen=True)
class Rates:
    """Seconds that a training FLOP, an evaluation and a benchmark take; ``None`` where none has been measured."""

    flop: float | None = None
    evaluate: float | None = None
    benchmark: float | None = None

    @classmethod
    def of(cls, flops: float, seconds: float, evaluate: Sequence[float], benchmark: Sequence[float]) -> Rates:
        """Of trainings that did so many FLOPs in so many seconds, and of what evaluations and benchmarks took."""
        return cls(seconds / flops if flops else None, _mean(evaluate), _mean(benchmark))


@dataclass(frozen=True)
class Left:
    """Seconds that the run will still take; ``at_least``: some stages are of a kind that none has ended of."""

    seconds: float
    at_least: bool

    def __str__(self) -> str:
        return f"{'more than' if self.at_least else 'about'} {span(self.seconds)}"


def span(seconds: float) -> str:
    """A time in seconds, minutes or hours, such as ``3 min 20 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole // 60 % 60:02} min"


def last_point(cell: str) -> Point | None:
    """Where a cell's training is; ``None`` before its first row."""
    row = last_row(checkpoint(cell) / "curve.csv")
    try:
        return Point(int(row["step"]), float(row["train_loss"]))
    except (KeyError, ValueError, TypeError):  # no row, or one that is damaged
        return None


def time_of(work: Work, rates: Rates, machine: Machine = ONE_BY_ONE) -> Left | None:
    """How long the work takes; ``None`` where nothing tells."""
    if work.flops and rates.flop is None:
        return None
    evaluating, benchmarking = _rest(work.evaluate, rates.evaluate), _rest(work.benchmark, rates.benchmark)
    total = work.flops * (rates.flop or 0.0) / max(machine.at_once // machine.devices, 1)
    total += (evaluating or 0.0) / machine.at_once + (benchmarking or 0.0) / (len(machine.gpus) or 1)
    known = evaluating is not None and benchmarking is not None
    return Left(total, at_least=not known) if known or total else None


def time_left(board: Board, machine: Machine, trainings: Mapping[str, Training]) -> Left | None:
    """``None`` while nothing tells: no training has got anywhere, nor has any other stage ended."""
    to_go, done, seconds = _training(board, trainings)
    waiting, ended = _seconds(board, UNSETTLED), _seconds(board, (State.DONE,))
    rates = Rates.of(done, seconds, ended["evaluate"], ended["benchmark"])
    return time_of(Work(to_go, waiting["evaluate"], waiting["benchmark"]), rates, machine)


def _mean(seconds: Sequence[float]) -> float | None:
    return sum(seconds) / len(seconds) if seconds else None


def _rest(begun: Sequence[float], mean: float | None) -> float | None:
    """Seconds that stages still take which have run for some already."""
    if mean is None:
        return None if begun else 0.0
    return sum(max(mean - seconds, 0.0) for seconds in begun)


def _training(board: Board, trainings: Mapping[str, Training]) -> tuple[float, float, float]:
    """FLOPs to go, FLOPs that the run has done, and the seconds that these took."""
    to_go = done = seconds = 0.0
    for name, entry in board.entries.items():
        stage = board.stages[name]
        if stage.kind != "pretrain" or stage.cell not in trainings:
            continue
        training = trainings[stage.cell]
        point = last_point(stage.cell) if entry.state is State.RUNNING else None
        left = 0.0 if board.settled(name) else training.left(point.step if point else None)
        to_go += left
        begun = point is not None and not math.isclose(left, training.to_go)  # else it has only just gone on
        if entry.state is State.DONE or begun:
            done += training.to_go - left
            seconds += entry.seconds
    return to_go, done, seconds


def _seconds(board: Board, states: Sequence[State]) -> dict[str, list[float]]:
    """Of each kind's stages in these states, the seconds that they have run."""
    seconds: dict[str, list[float]] = {"evaluate": [], "benchmark": []}
    for name in board.those(*states):
        entry, kind = board.entries[name], board.stages[name].kind
        if kind in seconds:
            seconds[kind].append(0.0 if entry.state is State.WAITING else entry.seconds)
    return seconds
