"""A worker: takes trials until as many as wanted are finished. Any number of them may share a search or a tuning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Generic, TypeVar

import optuna

from pipeline.base.again import StartAgain
from pipeline.base.device_failure import DeviceFailure, device_failure_says
from pipeline.base.errors import UserError
from pipeline.benchmark.cell import rates_of
from pipeline.results.records import DeviceRates
from pipeline.search.ledger import Ledger, claim
from pipeline.search.problem import Problem
from pipeline.search.storage import heartbeat
from pipeline.search.trial import Measured, Prune, run_trial
from pipeline.study.recipe_space import Point

PATIENCE = 3  # points in a row that are infeasible or known already, before one is drawn at random
STARTUP = 4  # complete trials before any is pruned
ERRORS = 3  # trials in a row that may end in an error

Result = TypeVar("Result")
Run = Callable[[Problem, Point, Prune, DeviceRates | None], Measured]


class Worker(Generic[Result]):
    """Works on the first problem that has a trial to take. ``write`` makes their files anew; ``run`` runs a trial.

    Raises :class:`UserError` where the storage does not open.
    """

    def __init__(
        self, problems: Sequence[Problem], write: Callable[[list[Ledger]], Result], run: Run = run_trial
    ) -> None:
        self.write, self.run_trial = write, run
        self.ledgers = [Ledger(problem) for problem in problems]
        for ledger in self.ledgers:
            ledger.optuna.pruner = optuna.pruners.MedianPruner(STARTUP, n_warmup_steps=0)

    def run(self) -> None:
        """Raises :class:`Stopped` after Ctrl-C; the trial that it interrupted is left for the next worker.

        Raises :class:`StartAgain` where a GPU failed, and :class:`DeviceFailure` where it did so too often for a trial.
        """
        idle = errors = 0
        while (claimed := claim(self.ledgers)) is not None:
            ledger, trial = claimed
            point = ledger.problem.point(trial.params)
            over = ledger.problem.violations(point)
            if ledger.twin(trial) is not None:
                ledger.drop(trial)
                idle += 1
            elif max(over.values()) > 0:
                ledger.refuse(trial, over)
                idle += 1
            else:
                errors = 0 if self._finished(ledger, trial, point, over) else errors + 1
                idle = 0
            if errors >= ERRORS:
                raise UserError(f"{ERRORS} trials in a row ended in an error; see above")
            if idle >= PATIENCE:
                idle = 0
                ledger.exhausted = not _draw(ledger)

    def save(self) -> Result:
        """Bring the files up to date."""
        return self.write(self.ledgers)

    def _finished(self, ledger: Ledger, trial: optuna.Trial, point: Point, over: dict[str, float]) -> bool:
        """Run a trial and record it; whether it ended without an error."""
        _, cell = ledger.problem.trial(point)
        print(f"trial {trial.number}: {cell.name}", file=sys.stderr, flush=True)
        try:
            with heartbeat(trial), device_failure_says():
                measured = self.run_trial(ledger.problem, point, _prune(ledger, trial), _rates(ledger))
        except DeviceFailure as failure:
            if not ledger.start_again(trial):
                raise
            print(f"the GPU failed ({failure.said}); the trial goes on in a new process", file=sys.stderr, flush=True)
            raise StartAgain from None
        except UserError as error:
            ledger.fail(trial, str(error))
            self.save()
            print(f"trial {trial.number} failed: {error}", file=sys.stderr, flush=True)
            return False
        except KeyboardInterrupt:
            ledger.put_back(trial)
            raise
        ledger.finish(trial, over, asdict(measured))
        _tell(ledger, trial.number, measured)
        self.save()
        return True


def _rates(ledger: Ledger) -> DeviceRates | None:
    problem = ledger.problem
    return ledger.device_rates(partial(rates_of, problem.study)) if problem.roofline else None


def _draw(ledger: Ledger) -> bool:
    """Enqueue a random new point; whether there is one."""
    if ledger.draw():
        return True
    section = ledger.problem.folder.name
    if not ledger.finished():
        right = f"no point of {section}.space fulfils them; loosen a limit or add choices"
        raise UserError(f"{section}.constraints: {right}")
    print(f"{section}: every feasible point of {section}.space has been tried", file=sys.stderr)
    return False


def _prune(ledger: Ledger, trial: optuna.Trial) -> Prune:
    """Loss alone is pruned by the median of earlier trials; Optuna has no such rule for two objectives."""

    def prune(loss: float, tokens: int) -> bool:
        with warnings.catch_warnings(action="ignore"):  # a continued trial reports some steps again
            trial.report(loss, tokens)
        return trial.should_prune()

    return prune if ledger.problem.objectives == ["loss"] else _never


def _never(loss: float, tokens: int) -> bool:
    return False


def _tell(ledger: Ledger, number: int, measured: Measured) -> None:
    facts = [measured.state] if measured.state != "complete" else []
    facts += [f"loss {measured.loss:.4f}"] if measured.loss is not None else []
    facts += [f"{measured.tokens_per_second:,.0f} tokens/s"] if measured.tokens_per_second is not None else []
    done = f"{len(ledger.finished())} of {ledger.problem.trials} finished"
    print(f"trial {number}: {', '.join(facts)}, {measured.seconds:.0f} s; {done}", file=sys.stderr, flush=True)
