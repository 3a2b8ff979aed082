"""What a search and a tuning write: a record of all trials, as JSON. Report, recipes and MLflow read these files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.files import read_json, write_json
from pipeline.base.paths import SEARCH, TUNE
from pipeline.base.typed_json import build
from pipeline.results.records import Environment

RESULTS, TABLE, VARIANTS = FILES = (SEARCH / "results.json", SEARCH / "trials.csv", SEARCH / "variants.yaml")
TUNED, TUNED_TABLE, RECIPES = TUNE_FILES = (TUNE / "results.json", TUNE / "trials.csv", TUNE / "recipes.yaml")
LOWER = {"loss": True, "tokens_per_second": False}


@dataclass(frozen=True)
class TrialResult:
    """A finished trial. ``state`` is ``complete``, ``pruned`` (stopped early) or ``diverged``.

    ``loss`` is the validation loss in nats per token, the last one before the trial was pruned; ``seconds`` are those
    of training and benchmark. ``cell`` names the checkpoint folder and, once pasted into params.yaml, the grid's cell;
    ``variant`` is a block transformer's. ``fingerprint`` is that of the weights, where there are any.
    """

    number: int
    state: str
    point: dict[str, int | float | str]
    cell: str
    variant: str | None
    loss: float | None
    tokens_per_second: float | None
    total_parameters: int
    non_embedding_parameters: int
    training_flops: float
    training_memory: int
    seconds: float
    fingerprint: str | None
    environment: Environment

    def objective(self, name: str) -> float:
        """The value of an objective, which the trial must have."""
        value = {"loss": self.loss, "tokens_per_second": self.tokens_per_second}[name]
        assert value is not None
        return value


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What was tried so far: ``wanted`` trials are to finish. ``identity`` is of all that makes two comparable.

    ``infeasible`` points violated a constraint and ``failed`` ones ended in an error; they are not among the trials.
    ``best`` are the numbers of the best trials: the front where there are two objectives.
    """

    identity: str
    objectives: list[str]
    wanted: int
    infeasible: int
    failed: int
    trials: list[TrialResult]
    best: list[int]

    @property
    def finished(self) -> bool:
        """Whether as many trials as wanted are."""
        return len(self.trials) >= self.wanted

    @property
    def keys(self) -> list[str]:
        """The keys of the points; one that a point's optimizer leaves unread is not in that point."""
        return list(dict.fromkeys(key for trial in self.trials for key in trial.point))

    @property
    def complete(self) -> list[TrialResult]:
        """The trials that ran to their end."""
        return [trial for trial in self.trials if trial.state == "complete"]


@dataclass(frozen=True, kw_only=True)
class SearchResult(Trials):
    """An allocation search so far.

    ``importance`` is each key's share of an objective's variance among the trials, where there are enough of them.
    """

    study: str
    setting: str
    throughput: str
    size: str
    importance: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelTuning(Trials):
    """The tuning of one model so far, for itself and the models in ``shared``.

    ``at_edge``: keys whose best value is the smallest or largest that was tried. ``halved`` and ``doubled``: nats that
    half and twice the best learning rate cost; ``None`` where the trials do not reach them.
    """

    model: str
    shared: list[str]
    at_edge: list[str]
    halved: float | None
    doubled: float | None

    @property
    def optimum(self) -> TrialResult | None:
        """The best trial, where one is complete."""
        return next((trial for number in self.best[:1] for trial in self.trials if trial.number == number), None)


@dataclass(frozen=True)
class Prediction:
    """The recipe of a model that was not tuned, from the optima of the models ``of``, with 95 % intervals."""

    model: str
    of: list[str]
    point: dict[str, int | float | str]
    intervals: dict[str, list[float]]
    at_edge: list[str]


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """A tuning so far, a model after the other; each trial is trained on ``tokens`` tokens, from ``seed``."""

    study: str
    tokens: int
    seed: int
    models: list[ModelTuning]
    predicted: list[Prediction]


def write_search(result: SearchResult | TuneResult, path: Path = RESULTS) -> None:
    """Write the record as JSON, whole or not at all."""
    write_json(path, dataclasses.asdict(result))


def read_search(path: Path = RESULTS) -> SearchResult | None:
    """The record; ``None`` where no search has been run. Raises :class:`UserError` where it is of another form."""
    result: SearchResult | None = _read(SearchResult, path)
    return result


def read_tuning(path: Path = TUNED) -> TuneResult | None:
    """The record; ``None`` where nothing has been tuned. Raises :class:`UserError` where it is of another form."""
    result: TuneResult | None = _read(TuneResult, path)
    return result


def _read(form: Any, path: Path) -> Any:
    if not path.exists():
        return None
    values = read_json(path)
    try:
        return build(form, values)
    except (TypeError, KeyError) as error:
        raise UserError(f"{path}: not a search's record ({error}); delete it and run the search again") from None
