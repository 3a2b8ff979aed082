"""What can be compared: each number of a row with its name, unit and direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.analysis.table import Point, Row


@dataclass(frozen=True)
class Metric:
    """A number that each row has or lacks.

    ``key`` is its column in results.csv and its name in MLflow; ``lower`` says whether less is better, ``None`` that
    neither direction is.
    """

    key: str
    label: str
    read: Callable[[Row], float | None]
    lower: bool | None = None
    logarithmic: bool = False

    def of(self, point: Point) -> float | None:
        """The mean over the point's seeds; ``None`` where a seed lacks it."""
        values = [self.value(row) for row in point.rows]
        present = [value for value in values if value is not None]
        return sum(present) / len(present) if len(present) == len(values) else None

    def value(self, row: Row) -> float | None:
        """The row's number; ``None`` where it lacks one, or has none that can be compared."""
        value = finite(self.read(row))
        return None if value is not None and self.logarithmic and value <= 0 else value


def finite(value: float | None) -> float | None:
    """The value, or ``None`` in place of infinity and not-a-number."""
    return value if value is not None and math.isfinite(value) else None


LOSS = Metric("loss", "Loss (nats a token)", lambda row: row.evaluate.loss, lower=True)
PARAMETERS = Metric(
    "non_embedding_parameters",
    "Non-embedding parameters",
    lambda row: row.pretrain.non_embedding_parameters,
    lower=True,
    logarithmic=True,
)
TRAINING_FLOPS = Metric(
    "training_flops", "Training FLOPs", lambda row: row.pretrain.training_flops, lower=True, logarithmic=True
)
TRAINING_TOKENS = Metric("tokens", "Training tokens", lambda row: row.pretrain.tokens, lower=True, logarithmic=True)

QUALITY = (
    LOSS,
    Metric("perplexity", "Perplexity", lambda row: row.evaluate.perplexity, lower=True, logarithmic=True),
    Metric(
        "word_perplexity", "Word perplexity", lambda row: row.evaluate.word_perplexity, lower=True, logarithmic=True
    ),
    Metric("bits_per_byte", "Bits a byte", lambda row: row.evaluate.bits_per_byte, lower=True),
)
TRAINING = (
    Metric(
        "total_parameters",
        "Parameters",
        lambda row: row.pretrain.total_parameters,
        lower=True,
        logarithmic=True,
    ),
    PARAMETERS,
    TRAINING_FLOPS,
    TRAINING_TOKENS,
    Metric("train_loss", "Training loss (nats a token)", lambda row: row.pretrain.train_loss, lower=True),
    Metric("validation_loss", "Validation loss (nats a token)", lambda row: row.pretrain.validation_loss, lower=True),
    Metric("training_seconds", "Training time (s)", lambda row: row.pretrain.seconds, lower=True, logarithmic=True),
    Metric(
        "training_tokens_per_second",
        "Training tokens/s",
        lambda row: row.pretrain.tokens_per_second,
        lower=False,
        logarithmic=True,
    ),
)
GENERATION = (
    ("tokens_per_second", "tokens/s", False),
    ("decode_tokens_per_second", "decode tokens/s", False),
    ("bytes_per_sample", "bytes a sample", True),
    ("kv_bytes_per_sample", "KV cache bytes a sample", True),
    ("time_to_first_token", "time to first token (s)", True),
    ("latency_per_token", "latency a token (s)", True),
    ("spread", "timing spread", True),
    ("roofline_fraction", "fraction of the roofline", False),
    ("batch", "batch", None),
)
LINEAR = ("spread", "roofline_fraction")


def readable(name: str) -> str:
    """A name of params.yaml as words: ``decode_heavy`` becomes ``decode-heavy``."""
    return name.replace("_", "-")


def setting_metric(setting: str, field: str) -> Metric:
    """One figure of one benchmark setting, such as ``decode_heavy_tokens_per_second``."""
    label, lower = next((label, lower) for key, label, lower in GENERATION if key == field)

    def read(row: Row) -> float | None:
        return getattr(row.benchmark.settings.get(setting), field, None)

    return Metric(f"{setting}_{field}", f"{readable(setting)} {label}", read, lower, logarithmic=field not in LINEAR)


def batch_metric(setting: str, batch: int) -> Metric:
    """The tokens/s at one batch of one setting."""

    def read(row: Row) -> float | None:
        measured = row.benchmark.settings.get(setting)
        measurements = measured.measurements if measured else []
        return next((each.tokens_per_second for each in measurements if each.batch == batch), None)

    label = f"{readable(setting)} tokens/s at batch {batch}"
    return Metric(f"{setting}_batch_{batch}", label, read, lower=False, logarithmic=True)


def limit_metric(setting: str) -> Metric:
    """The tokens/s that the device's measured rates allow in one setting."""

    def read(row: Row) -> float | None:
        measured = row.benchmark.settings.get(setting)
        return measured.roofline.tokens_per_second if measured and measured.roofline else None

    return Metric(f"{setting}_limit", f"{readable(setting)} roofline tokens/s", read, lower=False, logarithmic=True)


def baseline_metrics(rows: Sequence[Row]) -> list[Metric]:
    """Tokens/s of each other implementation that was measured, by setting."""
    names = dict.fromkeys(
        (setting, baseline.name)
        for row in rows
        for setting, measured in row.benchmark.settings.items()
        for baseline in measured.baselines
    )
    return [_baseline_metric(setting, name) for setting, name in names]


def settings_of(rows: Sequence[Row]) -> list[str]:
    """The benchmark settings that any row has, in order."""
    return list(dict.fromkeys(setting for row in rows for setting in row.benchmark.settings))


def task_metrics(rows: Sequence[Row]) -> list[Metric]:
    """One metric for each task and score that any row has; perplexities are better lower, everything else higher."""
    scores = dict.fromkeys((score.task, score.metric) for row in rows for score in row.evaluate.tasks)
    return [_task_metric(task, metric) for task, metric in scores]


def main_task_metrics(rows: Sequence[Row]) -> list[Metric]:
    """One metric a task, its accuracy where it has one: for short tables and for figures.

    Of a group that was scored as a whole, such as BLiMP, the members are left out: those whose names begin with its.
    """
    scores: dict[str, list[str]] = {}
    for score in (score for row in rows for score in row.evaluate.tasks):
        scores.setdefault(score.task, []).append(score.metric)
    whole = [task for task in scores if not any(task.startswith(f"{group}_") for group in scores)]
    return [_task_metric(task, "acc" if "acc" in scores[task] else scores[task][0]) for task in whole]


def all_metrics(rows: Sequence[Row]) -> list[Metric]:
    """Every metric of these rows: quality, tasks, training, then generation by setting."""
    generation = [setting_metric(setting, key) for setting in settings_of(rows) for key, _, _ in GENERATION]
    limits = [limit_metric(setting) for setting in settings_of(rows)]
    metrics = [*QUALITY, *task_metrics(rows), *TRAINING, *generation, *limits, *baseline_metrics(rows)]
    return [metric for metric in metrics if any(metric.value(row) is not None for row in rows)]


def _baseline_metric(setting: str, name: str) -> Metric:
    def read(row: Row) -> float | None:
        measured = row.benchmark.settings.get(setting)
        found = (each.tokens_per_second for each in measured.baselines if each.name == name) if measured else iter(())
        return next(found, None)

    label = f"{readable(setting)} {name} tokens/s"
    return Metric(f"{setting}_{name}_tokens_per_second", label, read, lower=False, logarithmic=True)


def _task_metric(task: str, metric: str) -> Metric:
    def read(row: Row) -> float | None:
        return next((s.value for s in row.evaluate.tasks if (s.task, s.metric) == (task, metric)), None)

    lower = any(word in metric for word in ("perplexity", "ppl", "bits_per_byte", "loss"))
    return Metric(f"{task}_{metric}", f"{readable(task)} {metric}", read, lower, logarithmic="perplexity" in metric)
