"""What a search writes: one record of all its trials, as JSON. The report and MLflow read this file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.base.errors import UserError
from pipeline.base.files import read_json, write_json
from pipeline.base.paths import SEARCH
from pipeline.base.typed_json import build
from pipeline.results.records import Environment

RESULTS, TABLE, VARIANTS = FILES = (SEARCH / "results.json", SEARCH / "trials.csv", SEARCH / "variants.yaml")
LOWER = {"loss": True, "tokens_per_second": False}


@dataclass(frozen=True)
class TrialResult:
    """A finished trial. ``state`` is ``complete``, ``pruned`` (stopped early) or ``diverged``.

    ``loss`` is the validation loss in nats a token, the last one before the trial was pruned; ``seconds`` are those of
    training and benchmark. ``cell`` names the checkpoint folder and, once pasted into params.yaml, the grid's cell.
    ``fingerprint`` is that of the weights, where there are any.
    """

    number: int
    state: str
    point: dict[str, int]
    cell: str
    variant: str
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


@dataclass(frozen=True)
class SearchResult:
    """A search so far: ``wanted`` trials are to finish. ``identity`` is of all that makes two trials comparable.

    ``infeasible`` points violated a constraint and ``failed`` ones ended in an error; they are not among the trials.
    ``best`` are the numbers of the best trials: the front where there are two objectives. ``importance`` is each key's
    share of an objective's variance among the trials, where there are enough of them.
    """

    study: str
    identity: str
    objectives: list[str]
    setting: str
    throughput: str
    size: str
    wanted: int
    infeasible: int
    failed: int
    trials: list[TrialResult]
    best: list[int]
    importance: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def complete(self) -> list[TrialResult]:
        """The trials that ran to their end."""
        return [trial for trial in self.trials if trial.state == "complete"]


def write_search(result: SearchResult, path: Path = RESULTS) -> None:
    """Write the record as JSON, whole or not at all."""
    write_json(path, dataclasses.asdict(result))


def read_search(path: Path = RESULTS) -> SearchResult | None:
    """The record; ``None`` where no search has been run. Raises :class:`UserError` where it is of another form."""
    if not path.exists():
        return None
    values = read_json(path)
    try:
        result: SearchResult = build(SearchResult, values)
    except (TypeError, KeyError) as error:
        raise UserError(f"{path}: not a search's record ({error}); delete it and run the search again") from None
    return result
