"""How far trainings are and how long the run will still take, by the rates that it has measured itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.base.paths import checkpoint
from pipeline.execution.board import Board, State
from pipeline.execution.resources import Machine

TAIL = 8192
"""Bytes of a curve that hold its last row."""

UNSETTLED = (State.WAITING, State.RUNNING)


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
class Left:
    """Seconds that the run will still take; ``at_least``: some stages are of a kind that none has ended of."""

    seconds: float
    at_least: bool


def last_point(cell: str) -> Point | None:
    """Where a cell's training is; ``None`` before its first row."""
    try:
        with (checkpoint(cell) / "curve.csv").open("rb") as opened:
            header = opened.readline().decode()
            opened.seek(max(opened.seek(0, io.SEEK_END) - TAIL, len(header)))
            rows = opened.read().decode(errors="replace").split("\n")[:-1]
        row = next(csv.DictReader([header, *rows[-1:]]), {})
        return Point(int(row["step"]), float(row["train_loss"]))
    except (OSError, KeyError, ValueError, TypeError):  # absent, or just being replaced
        return None


def time_left(board: Board, machine: Machine, trainings: Mapping[str, Training]) -> Left | None:
    """``None`` while nothing tells: no training has got anywhere, nor has any other stage ended."""
    to_go, done, seconds = _training(board, trainings)
    if to_go and not done:
        return None
    shared = to_go * seconds / done if to_go else 0.0
    evaluating, evaluated = _by_mean(board, "evaluate")
    benchmarking, benchmarked = _by_mean(board, "benchmark")
    devices = len(machine.gpus) or 1
    at_once = devices * machine.per_gpu if machine.gpus else machine.jobs
    total = shared / max(at_once // machine.devices, 1) + evaluating / at_once + benchmarking / devices
    known = evaluated and benchmarked
    return Left(total, at_least=not known) if known or total else None


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
        if entry.state is State.DONE or point:
            done += training.to_go - left
            seconds += entry.seconds
    return to_go, done, seconds


def _by_mean(board: Board, kind: str) -> tuple[float, bool]:
    """Seconds that stages of a kind will still take, by the mean of those that ended; whether one has."""
    entries = [entry for name, entry in board.entries.items() if board.stages[name].kind == kind]
    ended = [entry.seconds for entry in entries if entry.state is State.DONE]
    left = [entry.seconds if entry.state is State.RUNNING else 0.0 for entry in entries if entry.state in UNSETTLED]
    if not left or not ended:
        return 0.0, not left
    mean = sum(ended) / len(ended)
    return sum(max(mean - seconds, 0.0) for seconds in left), True
