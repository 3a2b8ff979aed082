"""A worker: takes trials until as many as wanted are finished. Any number of them may share a search."""

from __future__ import annotations

import sys
import warnings
from dataclasses import asdict

import optuna

from pipeline.base.errors import UserError
from pipeline.base.paths import TOKENS
from pipeline.benchmark.cell import rates_of
from pipeline.data import Manifest
from pipeline.results.search import SearchResult
from pipeline.search.feasibility import violations
from pipeline.search.ledger import Ledger
from pipeline.search.outputs import save
from pipeline.search.storage import heartbeat
from pipeline.search.trial import Measured, Prune, run_trial
from pipeline.study import Study
from pipeline.study.search_space import Point, trial_study

PATIENCE = 10  # points in a row that are infeasible or known already, before one is drawn at random
STARTUP = 4  # complete trials before any is pruned
ERRORS = 3  # trials in a row that may end in an error


class Worker:
    """Raises :class:`UserError` where tokens are missing or the storage does not open."""

    def __init__(self, study: Study) -> None:
        assert study.search is not None
        self.study, self.search = study, study.search
        manifest = Manifest.read(TOKENS)
        self.vocabulary = manifest.model_vocabulary
        self.ledger = Ledger(study, manifest)
        measure = self.search.throughput == "measured"
        self.rates = None if measure else self.ledger.device_rates(lambda: rates_of(study))
        # Not while the learning rate still rises: what is slow to begin may end well.
        self.ledger.optuna.pruner = optuna.pruners.MedianPruner(STARTUP, study.pretrain.warmup_steps)

    def run(self) -> None:
        """Raises :class:`Stopped` after Ctrl-C; the trial that it interrupted is left for the next worker."""
        idle = errors = 0
        while (trial := self.ledger.claim()) is not None:
            over = violations(self.study, trial.params, self.vocabulary)
            if self.ledger.twin(trial) is not None:
                self.ledger.drop(trial)
                idle += 1
            elif max(over.values()) > 0:
                self.ledger.refuse(trial, over)
                idle += 1
            else:
                errors = 0 if self._finished(trial, over) else errors + 1
                idle = 0
            if errors >= ERRORS:
                raise UserError(f"{ERRORS} trials in a row ended in an error; see above")
            if idle >= PATIENCE and not self._draw():
                return
            idle %= PATIENCE

    def _draw(self) -> bool:
        """Enqueue a random new point; whether there is one."""
        point = self.ledger.unknown_point(self._feasible)
        if point is not None:
            self.ledger.enqueue(point)
            return True
        if not self.ledger.finished():
            raise UserError("search.constraints: no point of search.space fulfils them; loosen a limit or add choices")
        print("search: every feasible point of search.space has been tried", file=sys.stderr)
        return False

    def _feasible(self, point: Point) -> bool:
        return max(violations(self.study, point, self.vocabulary).values()) <= 0

    def _finished(self, trial: optuna.Trial, over: dict[str, float]) -> bool:
        """Run a trial and record it; whether it ended without an error."""
        _, cell = trial_study(self.study, trial.params)
        print(f"trial {trial.number}: {cell.name}", file=sys.stderr, flush=True)
        try:
            with heartbeat(trial):
                measured = run_trial(self.study, trial.params, self._prune(trial), self.rates)
        except UserError as error:
            self.ledger.fail(trial, str(error))
            self.save()
            print(f"trial {trial.number} failed: {error}", file=sys.stderr, flush=True)
            return False
        except KeyboardInterrupt:
            self.ledger.put_back(trial)
            raise
        self.ledger.finish(trial, over, asdict(measured))
        self._tell(trial.number, cell.name, measured)
        self.save()
        return True

    def save(self) -> SearchResult:
        """Bring the search's files up to date."""
        return save(self.study, self.ledger, self.vocabulary)

    def _prune(self, trial: optuna.Trial) -> Prune:
        """Loss alone is pruned by the median of earlier trials; Optuna has no such rule for two objectives."""

        def prune(loss: float, step: int) -> bool:
            with warnings.catch_warnings(action="ignore"):  # a continued trial reports some steps again
                trial.report(loss, step)
            return trial.should_prune()

        return prune if self.search.objectives == ["loss"] else _never

    def _tell(self, number: int, cell: str, measured: Measured) -> None:
        facts = [measured.state] if measured.state != "complete" else []
        facts += [f"loss {measured.loss:.4f}"] if measured.loss is not None else []
        facts += [f"{measured.tokens_per_second:,.0f} tokens/s"] if measured.tokens_per_second is not None else []
        done = f"{len(self.ledger.finished())} of {self.search.trials} finished"
        print(f"trial {number}: {', '.join(facts)}, {measured.seconds:.0f} s; {done}", file=sys.stderr, flush=True)


def _never(loss: float, step: int) -> bool:
    return False
