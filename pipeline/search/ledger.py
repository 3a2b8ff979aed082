"""The trials that a search's workers share: who takes which, how many count, and which points are known.

A trial counts once it is finished: trained and measured, pruned or diverged. Points that violate a constraint, points
that another trial holds already, and trials whose worker died do not count.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pipeline.base.made_of import made_of
from pipeline.results.records import DeviceRates
from pipeline.results.search import LOWER
from pipeline.search.storage import Watch, lock, open_study
from pipeline.study import Study
from pipeline.study.search_space import Point, choices, known_points

if TYPE_CHECKING:
    from pipeline.data import Manifest

RETRIES = 5  # of a trial whose workers die
with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
    RETRY = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES, inherit_intermediate_values=True)
WAIT = (0.5, 1.5)
DRAWS = 10_000  # points looked at for one that is not known


class Ledger:
    """One worker's view of them."""

    def __init__(self, study: Study, manifest: Manifest) -> None:
        assert study.search is not None
        self.search = study.search
        self.identity = identity(study, manifest)
        self.varied = choices(self.search)
        self.watch = Watch()
        lower, higher = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
        directions = [lower if LOWER[name] else higher for name in self.search.objectives]
        self.optuna = open_study(f"{study.name}-{self.identity}", self.search.storage, directions)
        with lock("enqueue"):
            for point in known_points(study):
                self.optuna.enqueue_trial(point, skip_if_exists=True)

    def trials(self) -> list[FrozenTrial]:
        """Every trial, running ones and infeasible points too."""
        return self.optuna.get_trials(deepcopy=False)

    def finished(self) -> list[FrozenTrial]:
        """The trials that count towards ``search.trials``."""
        return [trial for trial in self.trials() if counts(trial)]

    def claim(self) -> optuna.Trial | None:
        """A trial to run; waits while other workers run the last ones. ``None`` once as many as wanted are finished."""
        while True:
            self._retry_stale()
            if len(self.finished()) >= self.search.trials:
                return None
            if self._taken() < self.search.trials:
                trial = self._ask()
                # Another worker may have taken the last one at the same moment: whoever sees too many gives up his.
                if self._taken() <= self.search.trials:
                    return trial
                self.put_back(trial)
            time.sleep(random.uniform(*WAIT))

    def put_back(self, trial: optuna.Trial) -> None:
        """Leave a trial for later, with its parameters."""
        self.drop(trial)
        self.optuna.enqueue_trial(trial.params)

    def device_rates(self, measure: Callable[[], DeviceRates]) -> DeviceRates:
        """The rates that rooflines are taken against: the first worker's, so that trials compare."""
        with lock("rates"):
            known = self.optuna.user_attrs.get("rates")
            rates = DeviceRates(**known) if known else measure()
            if not known:
                self.optuna.set_user_attr("rates", asdict(rates))
        return rates

    def twin(self, trial: optuna.Trial) -> FrozenTrial | None:
        """A trial of the same point that is finished, refused, or under way before this one."""
        for other in self.trials():
            if other.number != trial.number and other.params == trial.params and self._holds(other, trial.number):
                return other
        return None

    def unknown_point(self, feasible: Callable[[Point], bool]) -> Point | None:
        """A random feasible point that no trial holds; ``None`` where none is found."""
        trials = self.trials()
        held = [other.params for other in trials if self._holds(other, len(trials))]
        draw = random.Random(f"{self.search.seed} {len(trials)}")
        for _ in range(DRAWS):
            point = {key: draw.choice(values) for key, values in self.varied.items()}
            if point not in held and feasible(point):
                return point
        return None

    def enqueue(self, point: Point) -> None:
        """Have a point tried next."""
        self.optuna.enqueue_trial(point)

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
            self._tell(trial, values=[measured[name] for name in self.search.objectives])
        else:
            self._tell(trial, state=TrialState.PRUNED)

    def _tell(self, trial: optuna.Trial, **outcome: Any) -> None:
        """A worker that was taken for dead finds its trial failed, and run anew: that one counts."""
        self.optuna.tell(trial, skip_if_finished=True, **outcome)

    def _taken(self) -> int:
        return len(self.finished()) + sum(trial.state == TrialState.RUNNING for trial in self.trials())

    def _holds(self, other: FrozenTrial, number: int) -> bool:
        if other.state == TrialState.RUNNING:
            return other.number < number
        if other.state == TrialState.FAIL:
            retried = len(other.system_attrs.get("retry_history", []))
            return "error" in other.user_attrs or retried >= RETRIES
        return other.state in (TrialState.COMPLETE, TrialState.PRUNED)

    def _ask(self) -> optuna.Trial:
        """The next point; the sampler's seed changes with each, so that a resumed search does not repeat itself."""
        self.optuna.sampler = optuna.samplers.TPESampler(seed=self.search.seed + len(self.trials()))
        return self.optuna.ask({key: distribution(values) for key, values in self.varied.items()})

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


def identity(study: Study, manifest: Manifest) -> str:
    """A hash of everything that makes trials comparable; a changed search begins anew, a longer one goes on."""
    search = study.search
    assert search is not None
    decisive = {
        "search": {key: value for key, value in made_of(search).items() if key not in ("trials", "storage", "enqueue")},
        "size": made_of(study.sizes[search.size]),
        "variant": made_of(study.variants[search.variant]),
        "pretrain": made_of(replace(study.pretrain, budgets=[])),
        "benchmark": made_of(study.benchmark),
        "label": study.hardware.label,
        "corpus": manifest.hash,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial was measured: complete, stopped early or diverged."""
    return "measured" in trial.user_attrs and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def distribution(values: list[int]) -> IntDistribution | CategoricalDistribution:
    """Evenly spaced choices as numbers, whose order the sampler then knows; others as categories."""
    steps = {after - before for before, after in pairwise(values)}
    if len(steps) == 1:
        return IntDistribution(values[0], values[-1], step=steps.pop())
    return CategoricalDistribution(values)
