"""One trial: a cell trained and benchmarked as the stages do it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.base import paths
from pipeline.benchmark.cell import benchmark, environment_of, limit
from pipeline.results.records import DeviceRates, Environment
from pipeline.search.problem import Problem
from pipeline.search.storage import lock
from pipeline.study import Cell, Study, pretraining, training_steps
from pipeline.study.recipe_space import Point
from pipeline.training import pretrain
from pipeline.training.curve import Row

Prune = Callable[[float, int], bool]


@dataclass(frozen=True)
class Measured:
    """What a trial found. ``state`` is ``complete``, ``pruned`` or ``diverged``; ``seconds`` are this worker's alone.

    ``loss`` is the validation loss, in nats per token: chosen by it, the best trials still have an unseen test split.
    """

    state: str
    loss: float | None
    tokens_per_second: float | None
    seconds: float
    environment: Environment
    fingerprint: str | None = None


class Pruned(Exception):
    """Leaves training early; ``loss`` is the last validation loss."""

    def __init__(self, loss: float) -> None:
        super().__init__(loss)
        self.loss = loss


def run_trial(problem: Problem, point: Point, prune: Prune, rates: DeviceRates | None) -> Measured:
    """Train and benchmark the point's cell, or finish what a killed worker left of it.

    ``prune`` is asked with every validation loss once warm-up and half of the tokens are over, and the tokens seen
    until then, which tell trials with other batch sizes apart from those that are behind. With ``rates`` the roofline
    stands for the benchmark.
    Without a loss among the objectives nothing is trained, since speed does not depend on the weights.
    Raises :class:`UserError`, and :class:`Stopped` after Ctrl-C, once the training state is saved.
    """
    trial, cell = problem.trial(point)
    started = time.perf_counter()
    state, loss, fingerprint, speed = "complete", None, None, None
    # A worker taken for dead may still be at it; two must not train in one folder.
    with lock(problem.folder, cell.name):
        if "loss" in problem.objectives:
            state, loss, fingerprint = _train(trial, cell, prune)
        if state == "complete" and "tokens_per_second" in problem.objectives:
            speed = _speed(trial, cell, rates, trained=fingerprint is not None)
    return Measured(state, loss, speed, time.perf_counter() - started, environment_of(trial), fingerprint)


def _train(study: Study, cell: Cell, prune: Prune) -> tuple[str, float | None, str | None]:
    keys = pretraining(study, cell)
    last = training_steps(keys)

    def on_row(row: Row) -> None:
        loss = row.validation_loss
        # Earlier losses favour low learning rates: high ones begin worse and end better (arXiv 2509.02046).
        late = row.step > keys.warmup_steps and 2 * row.step >= last
        if loss is not None and late and prune(loss, row.tokens) and row.step < last:
            raise Pruned(loss)

    try:
        result = pretrain(study, cell, on_row)
    except Pruned as pruned:
        shutil.rmtree(paths.checkpoint(cell.name))
        return "pruned", pruned.loss, None
    assert result is not None
    return "diverged" if result.diverged else "complete", result.validation_loss, result.cell.fingerprint


def _speed(study: Study, cell: Cell, rates: DeviceRates | None, trained: bool) -> float:
    (name, setting), *_ = study.benchmark.settings.items()
    if rates is not None:
        return limit(study, cell, setting, rates).tokens_per_second
    measured = benchmark(study, cell, random_weights=not trained, report=_silent)
    return measured.settings[name].tokens_per_second


def _silent(_: str) -> None:
    pass
