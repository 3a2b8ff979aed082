"""The trials of a problem that workers share: who takes which, how many count, and which points are known.

A trial counts once it is finished: trained and measured, pruned or diverged. Points that violate a constraint, points
that another trial holds already, and trials whose worker died do not count.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pipeline.base.device_failure import DeviceFailure
from pipeline.results.records import DeviceRates
from pipeline.results.search import LOWER
from pipeline.search.problem import Problem
from pipeline.search.storage import Watch, lock, open_study
from pipeline.study.recipe_space import Point

RETRIES = 5  # of a trial whose workers die
with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
    RETRY = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES, inherit_intermediate_values=True)
WAIT = (0.5, 1.5)
DRAWS = 10_000  # points looked at for one that is not known


class Ledger:
    """One worker's view of them. ``exhausted``: it found no feasible point that has not been tried."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.exhausted = False
        self.watch = Watch()
        lower, higher = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
        directions = [lower if LOWER[name] else higher for name in problem.objectives]
        name = f"{problem.study.name}-{problem.identity}"
        self.optuna = open_study(problem.folder, name, problem.storage, directions)

    def trials(self) -> list[FrozenTrial]:
        """Every trial, running ones and infeasible points too."""
        return self.optuna.get_trials(deepcopy=False)

    def finished(self) -> list[FrozenTrial]:
        """The trials that count towards those wanted, in the order in which they ended."""
        counted = [trial for trial in self.trials() if counts(trial)]
        return sorted(counted, key=lambda trial: (trial.datetime_complete, trial.number))

    def over(self) -> bool:
        """Whether as many trials as wanted are finished, or no more can be."""
        return self.exhausted or len(self.finished()) >= self.problem.trials

    def claim(self) -> optuna.Trial | None:
        """A trial to run; ``None`` while other workers run the last ones."""
        self._retry_stale()
        with lock(self.problem.folder, "ask"):
            if self._taken() >= self.problem.trials:
                return None
            trial = self._ask()
        # A worker with a folder of its own, which shares the database alone, takes no notice of the lock: of two that
        # took the last one at the same moment, whoever sees too many gives up his.
        if self._taken() <= self.problem.trials:
            return trial
        self.put_back(trial)
        return None

    def put_back(self, trial: optuna.Trial, device_failures: int = 0) -> None:
        """Leave a trial for later, with its parameters."""
        self.drop(trial)
        self.optuna.enqueue_trial(trial.params, user_attrs={"device_failures": device_failures})

    def start_again(self, trial: optuna.Trial) -> bool:
        """Put back a trial whose GPU failed; whether it may be started again before somebody looks at it."""
        failures = trial.user_attrs.get("device_failures", 0) + 1
        again: bool = failures < DeviceFailure.tries
        self.put_back(trial, failures if again else 0)
        return again

    def device_rates(self, measure: Callable[[], DeviceRates]) -> DeviceRates:
        """The rates that rooflines are taken against: the first worker's, so that trials compare."""
        with lock(self.problem.folder, "rates"):
            known = self.optuna.user_attrs.get("rates")
            rates = DeviceRates(**known) if known else measure()
            if not known:
                self.optuna.set_user_attr("rates", asdict(rates))
        return rates

    def twin(self, trial: optuna.Trial) -> FrozenTrial | None:
        """A trial of the same point that is finished, refused, or under way before this one."""
        point = self.problem.point(trial.params)
        for other in self.trials():
            if other.number != trial.number and self._holds(other, trial.number) and self._point(other) == point:
                return other
        return None

    def draw(self) -> bool:
        """Have a random feasible point that no trial holds tried next; whether one was found."""
        trials = self.trials()
        held = [self._point(other) for other in trials if self._holds(other, len(trials))]
        draw = random.Random(f"{self.problem.seed} {len(trials)}")
        drawn = {
            key: _values(distribution) for key, distribution in self.problem.distributions(self.finished()).items()
        }
        for _ in range(DRAWS):
            params = {key: draw.choice(values) for key, values in drawn.items()}
            point = self.problem.point(params)
            if point not in held and self.problem.feasible(point):
                self.optuna.enqueue_trial(params)
                return True
        return False

    def refuse(self, trial: optuna.Trial, violations: dict[str, float]) -> None:
        """Tell Optuna that the point violates constraints, so that it looks elsewhere."""
        for key, violation in violations.items():
            trial.set_constraint(key, violation)
        self._tell(trial, state=TrialState.PRUNED)

    def drop(self, trial: optuna.Trial) -> None:
        """Let a trial go, as if it had never been."""
        self._tell(trial, state=TrialState.FAIL)

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """Give up a trial that ended in an error; its point is not tried again."""
        trial.set_user_attr("error", reason)
        self._tell(trial, state=TrialState.FAIL)

    def finish(self, trial: optuna.Trial, violations: dict[str, float], measured: dict[str, Any]) -> None:
        """Record what was measured. ``measured["state"]`` is complete, pruned or diverged."""
        for key, violation in violations.items():
            trial.set_constraint(key, violation)
        trial.set_user_attr("measured", measured)
        if measured["state"] == "complete":
            self._tell(trial, values=[measured[name] for name in self.problem.objectives])
        else:
            self._tell(trial, state=TrialState.PRUNED)

    def _tell(self, trial: optuna.Trial, **outcome: Any) -> None:
        """A worker that was taken for dead finds its trial failed, and run anew: that one counts."""
        self.optuna.tell(trial, skip_if_finished=True, **outcome)

    def _taken(self) -> int:
        """How many count or are under way, of one look: a trial that ends between two would be in neither."""
        return sum(counts(trial) or trial.state == TrialState.RUNNING for trial in self.trials())

    def _point(self, trial: FrozenTrial) -> Point | None:
        """``None`` while another worker draws it."""
        drawn = trial.params.keys() >= self.problem.varied.keys()
        return self.problem.point(trial.params) if drawn else None

    def _holds(self, other: FrozenTrial, number: int) -> bool:
        if other.state == TrialState.RUNNING:
            return other.number < number
        if other.state == TrialState.FAIL:
            retried = len(other.system_attrs.get("retry_history", []))
            return "error" in other.user_attrs or retried >= RETRIES
        return other.state in (TrialState.COMPLETE, TrialState.PRUNED)

    def _ask(self) -> optuna.Trial:
        """The next point; the sampler's seed changes with each, so that a resumed search does not repeat itself."""
        self._enqueue_known()
        seed = self.problem.seed + len(self.trials())
        self.optuna.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.problem.at_random)
        return self.optuna.ask(self.problem.distributions(self.finished()))

    def _enqueue_known(self) -> None:
        """The first that no trial has, unless another trial waits: what a dead worker left goes before."""
        for params in self.problem.known(self.finished()):
            if any(trial.state == TrialState.WAITING for trial in self.trials()):
                return
            self.optuna.enqueue_trial(params, skip_if_exists=True)

    def _retry_stale(self) -> None:
        for trial in self.trials():
            if trial.state != TrialState.RUNNING or not self.watch.stale(trial):
                continue
            try:
                self.optuna.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):
                continue  # another worker was faster
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                RETRY(self.optuna, trial)


def claim(ledgers: Sequence[Ledger]) -> tuple[Ledger, optuna.Trial] | None:
    """A trial to run, of the first ledger that has one; waits while other workers run the last ones.

    ``None`` once every ledger is over.
    """
    while True:
        waiting = [ledger for ledger in ledgers if not ledger.over()]
        if not waiting:
            return None
        for ledger in waiting:
            trial = ledger.claim()
            if trial is not None:
                return ledger, trial
        time.sleep(random.uniform(*WAIT))


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial was measured: complete, stopped early or diverged."""
    return "measured" in trial.user_attrs and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution)
    return list(range(distribution.low, distribution.high + 1, distribution.step))
