"""Each number that the records declare, as it is compared and shown: for results.csv, MLflow and the report."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, get_type_hints

from pipeline.results.probes import summaries
from pipeline.results.records import (
    GOLD,
    STAGES,
    AnyResult,
    Baseline,
    BatchMeasurement,
    BenchmarkResult,
    EvaluateResult,
    Measure,
    PretrainResult,
    Roofline,
    SettingResult,
)


class Records(Protocol):
    """A cell's records, one per stage."""

    @property
    def pretrain(self) -> PretrainResult: ...

    @property
    def evaluate(self) -> EvaluateResult: ...

    @property
    def benchmark(self) -> BenchmarkResult: ...

    @property
    def borrows(self) -> bool:
        """Whether its benchmark is that of another seed."""


Cells = TypeVar("Cells", bound=Records)


class Seeds(Protocol):
    """Cells that differ in their seed alone."""

    @property
    def rows(self) -> Sequence[Records]: ...


@dataclass(frozen=True)
class Metric:
    """A number that each record of a ``stage`` has or lacks.

    ``key`` is its column in results.csv and its name in MLflow; ``lower`` says whether less is better, ``None`` that
    neither direction is. What is no ``column`` is in MLflow alone. ``quality`` is what training gave the weights.
    """

    key: str
    label: str
    stage: str
    read: Callable[[Any], float | None]
    lower: bool | None = None
    logarithmic: bool = False
    column: bool = True
    quality: bool = False

    @classmethod
    def declared(
        cls, measure: Measure, key: str, stage: str, read: Callable[[Any], float | None], label: str = ""
    ) -> Metric:
        """The metric of a field's declaration; ``label`` stands for its own."""
        flags = (measure.lower, measure.logarithmic, measure.column, measure.quality)
        return cls(key, label or measure.title, stage, read, *flags)

    def of_record(self, record: AnyResult) -> float | None:
        """The record's number; ``None`` where it lacks one, or has none that can be compared."""
        value = finite(self.read(record))
        return None if value is not None and self.logarithmic and value <= 0 else value

    def value(self, row: Records) -> float | None:
        """The cell's number. One whose training diverged has none of quality: its loss is no loss among losses."""
        return None if self.quality and row.pretrain.diverged else self.of_record(getattr(row, self.stage))

    def own(self, rows: Sequence[Cells]) -> Sequence[Cells]:
        """The cells of a model that count: a timing that several seeds share counts once."""
        own = [row for row in rows if self.stage != "benchmark" or not row.borrows]
        return own or rows[:1]  # all of them borrow from one that is not here

    def of(self, point: Seeds) -> float | None:
        """The mean over seeds; ``None`` where one lacks it."""
        present = self._of_each(point)
        return sum(present) / len(present) if present else None

    def spread(self, point: Seeds) -> float | None:
        """The standard deviation over seeds; ``None`` for one seed, or where one lacks the number."""
        present = self._of_each(point)
        return statistics.stdev(present) if len(present) > 1 else None

    def _of_each(self, point: Seeds) -> list[float]:
        values = [self.value(row) for row in self.own(point.rows)]
        return [value for value in values if value is not None] if None not in values else []


def finite(value: float | None) -> float | None:
    """The value, or ``None`` in place of infinity and not-a-number."""
    return value if value is not None and math.isfinite(value) else None


def readable(name: str) -> str:
    """A name of params.yaml as words: ``decode_heavy`` becomes ``decode-heavy``."""
    return name.replace("_", "-")


def _measures(kind: type) -> dict[str, Measure]:
    hints = get_type_hints(kind, include_extras=True)
    declared = ((name, getattr(hint, "__metadata__", ())) for name, hint in hints.items())
    return {name: measures[0] for name, measures in declared if measures and isinstance(measures[0], Measure)}


MEASURES = {kind: _measures(kind) for kind in (*STAGES.values(), SettingResult, BatchMeasurement, Roofline, Baseline)}
"""What the fields of each record declare, by the field's name."""


def own_metric(stage: str, field: str) -> Metric:
    """The metric that a field of the stage's record declares."""
    measure = MEASURES[STAGES[stage]][field]
    return Metric.declared(measure, measure.key or field, stage, lambda record: getattr(record, field))


LOSS = own_metric("evaluate", "loss")
BITS_PER_BYTE = own_metric("evaluate", "bits_per_byte")
PARAMETERS = own_metric("pretrain", "non_embedding_parameters")
TRAINING_FLOPS = own_metric("pretrain", "training_flops")
TRAINING_TOKENS = own_metric("pretrain", "tokens")
GENERATION = tuple(name for name, measure in MEASURES[SettingResult].items() if measure.column)
"""The figures of a benchmark setting that are columns."""


def setting_metric(setting: str, field: str) -> Metric:
    """One figure of one benchmark setting, such as ``decode_heavy_tokens_per_second``."""
    return _of_setting(setting, MEASURES[SettingResult][field], field, lambda measured: getattr(measured, field))


def batch_metric(setting: str, batch: int) -> Metric:
    """The tokens/s at one batch of one setting."""
    measure = MEASURES[BatchMeasurement]["tokens_per_second"]
    label = f"{readable(setting)} {measure.label} at batch {batch}"
    return _of_setting(
        setting,
        measure,
        f"batch_{batch}",
        lambda measured: next(
            (measurement.tokens_per_second for measurement in measured.measurements if measurement.batch == batch), None
        ),
        label,
    )


def limit_metric(setting: str) -> Metric:
    """The tokens/s that the device's measured rates allow in one setting."""
    measure = MEASURES[Roofline]["tokens_per_second"]
    return _of_setting(
        setting,
        measure,
        measure.key,
        lambda measured: measured.roofline.tokens_per_second if measured.roofline else None,
    )


def _baseline_metric(setting: str, name: str) -> Metric:
    measure = MEASURES[Baseline]["tokens_per_second"]
    return _of_setting(
        setting,
        measure,
        f"{name}_tokens_per_second",
        lambda measured: next(
            (baseline.tokens_per_second for baseline in measured.baselines if baseline.name == name), None
        ),
        f"{readable(setting)} {name} {measure.label}",
    )


def _of_setting(
    setting: str, measure: Measure, key: str, read: Callable[[SettingResult], float | None], label: str = ""
) -> Metric:
    def of(record: BenchmarkResult) -> float | None:
        measured = record.settings.get(setting)
        return read(measured) if measured else None

    return Metric.declared(
        measure, f"{setting}_{key}", "benchmark", of, label or f"{readable(setting)} {measure.title}"
    )


def task_metric(task: str, score: str) -> Metric:
    """One metric of one task. lm-eval's perplexities and losses are better lower, everything else of it higher."""

    def read(record: EvaluateResult) -> float | None:
        return next((scored.value for scored in record.tasks if (scored.task, scored.metric) == (task, score)), None)

    if score in GOLD:
        return Metric.declared(
            GOLD[score], f"{task}_{score}", "evaluate", read, f"{readable(task)} {GOLD[score].title}"
        )
    lower = any(word in score for word in ("perplexity", "ppl", "bits_per_byte", "loss"))
    label = f"{readable(task)} {score}"
    return Metric(f"{task}_{score}", label, "evaluate", read, lower, "perplexity" in score, quality=True)


def _probe_metric(key: str, measure: Measure) -> Metric:
    """One of the numbers that sum up probes."""

    def read(record: EvaluateResult) -> float | None:
        found = summaries(record).get(key)
        return None if found is None else found[1]

    return Metric.declared(measure, key, "evaluate", read)


def _group_metric(group: str) -> Metric:
    def read(record: PretrainResult) -> float | None:
        return record.parameters.get(group)

    label = f"Parameters: {readable(group)}"
    return Metric(f"parameters_{group}", label, "pretrain", read, lower=True, logarithmic=True, column=False)


def settings_of(rows: Sequence[Records]) -> list[str]:
    """The benchmark settings that any row has, in order."""
    return _settings([row.benchmark for row in rows])


def all_metrics(rows: Sequence[Records]) -> list[Metric]:
    """Every column that any row has a number in: quality, tasks, training, then generation by setting."""
    metrics = [
        metric
        for stage in ("evaluate", "pretrain", "benchmark")
        for metric in _metrics(stage, [getattr(row, stage) for row in rows])
    ]
    return [metric for metric in metrics if metric.column and any(metric.value(row) is not None for row in rows)]


def result_metrics(record: AnyResult, diverged: bool = False) -> dict[str, float]:
    """A record's numbers by the names of results.csv, less the characters that MLflow takes in no name.

    ``loss``, ``cloze_acc``, ``prefill_heavy_tokens_per_second``. What is not a positive, finite number where it should
    be one is left out, and so is the quality of a cell whose training ``diverged``.
    """
    (stage,) = (name for name, kind in STAGES.items() if isinstance(record, kind))
    metrics = [metric for metric in _metrics(stage, [record]) if not (diverged and metric.quality)]
    values = {metric.key: metric.of_record(record) for metric in metrics}
    return {in_mlflow(key): float(value) for key, value in values.items() if value is not None}


def in_mlflow(key: str) -> str:
    """A metric's name without the characters that MLflow takes in none."""
    return re.sub(r"[^\w/.\- :]", "", key)


def quality_metrics(records: Sequence[EvaluateResult]) -> list[Metric]:
    """What evaluation says of weights, by the columns that any of the records has: losses, tasks, probes."""
    return [metric for metric in _metrics("evaluate", records) if metric.quality and metric.column]


def quality(record: EvaluateResult) -> dict[str, float]:
    """The record's numbers of :func:`quality_metrics`, by their names in results.csv."""
    values = {metric.key: metric.of_record(record) for metric in quality_metrics([record])}
    return {key: value for key, value in values.items() if value is not None}


def _metrics(stage: str, records: Sequence[Any]) -> list[Metric]:
    """Every metric that one of a stage's records may have."""
    own = [own_metric(stage, field) for field in MEASURES[STAGES[stage]]]
    if stage == "pretrain":
        return own + [
            _group_metric(group) for group in dict.fromkeys(group for record in records for group in record.parameters)
        ]
    if stage == "evaluate":
        scores = dict.fromkeys((score.task, score.metric) for record in records for score in record.tasks)
        probes = {key: measure for record in records for key, (measure, _) in summaries(record).items()}
        return own + [task_metric(*score) for score in scores] + [_probe_metric(*probe) for probe in probes.items()]
    settings = _settings(records)
    figures = [setting_metric(setting, field) for setting in settings for field in MEASURES[SettingResult]]
    return own + figures + [limit_metric(setting) for setting in settings] + _baseline_metrics(records)


def _settings(records: Sequence[BenchmarkResult]) -> list[str]:
    return list(dict.fromkeys(setting for record in records for setting in record.settings))


def _baseline_metrics(records: Sequence[BenchmarkResult]) -> list[Metric]:
    """Tokens/s of each other implementation that was measured, by setting."""
    names = dict.fromkeys(
        (setting, baseline.name)
        for record in records
        for setting, measured in record.settings.items()
        for baseline in measured.baselines
    )
    return [_baseline_metric(setting, name) for setting, name in names]
