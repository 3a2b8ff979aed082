"""Studies beside each other: what each knows of its models, which of their keys differ, and whether losses compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.analysis.rows.load import SAME, Missing
from pipeline.analysis.rows.points import Point, Row, points
from pipeline.analysis.statistics.findings import hardware
from pipeline.base.dominance import non_dominated
from pipeline.results.metrics import (
    BITS_PER_BYTE,
    LOSS,
    PARAMETERS,
    TRAINING_FLOPS,
    TRAINING_TOKENS,
    Metric,
    setting_metric,
    settings_of,
)
from pipeline.study import Study

RATE, BYTES = "tokens_per_second", "bytes_per_sample"
QUALITY = (PARAMETERS, TRAINING_TOKENS, TRAINING_FLOPS, LOSS, BITS_PER_BYTE)
BRIEF = (PARAMETERS, LOSS, BITS_PER_BYTE)
CORPUS = ("documents_hash", "documents")
NONE, UNKNOWN = "-", "?"
SHOWN_VALUE = 60
"""Characters of a key's value that a table shows."""


@dataclass(frozen=True)
class Entry:
    """A model of a study: the mean of ``seeds`` cells. ``values`` are metrics by their keys in results.csv.

    ``series``: the family, with the block length where it has one.
    """

    name: str
    series: str
    seeds: int
    values: dict[str, float]


@dataclass(frozen=True)
class Side:
    """A study to compare, wherever it was read.

    ``keys``: its keys as text; ``partial``: a key that is not among them may have any value. ``scored``: what its
    losses were measured on, empty where that is not known. ``device``: what its speeds were measured on, if any were.
    """

    label: str
    entries: list[Entry]
    settings: list[str]
    keys: dict[str, str]
    device: str
    scored: dict[str, Any] = field(default_factory=dict)
    partial: bool = False
    missing: Sequence[Missing] = ()


@dataclass(frozen=True)
class Verdict:
    """By which number the sides' quality is drawn, whether it compares at all, and what to know before comparing."""

    measure: Metric
    compares: bool
    warnings: list[str]


def side_of(label: str, study: Study, rows: list[Row], missing: Sequence[Missing]) -> Side:
    """A study's side."""
    settings = settings_of(rows)
    metrics = [*QUALITY, *(setting_metric(name, figure) for name in settings for figure in (RATE, BYTES))]
    keys = {key: value for key, value in _flat(dataclasses.asdict(study)) if key != "name"}
    scored = {key: getattr(rows[0].evaluate, key) for key in SAME}
    entries = [_entry(point, metrics) for point in points(rows)]
    return Side(label, entries, settings, keys, hardware(rows), scored, missing=missing)


def _entry(point: Point, metrics: Iterable[Metric]) -> Entry:
    numbers = {metric.key: metric.of(point) for metric in metrics}
    values = {key: value for key, value in numbers.items() if value is not None}
    return Entry(point.name, point.series, len(point.rows), values)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def common_settings(sides: Sequence[Side]) -> list[str]:
    """The benchmark settings that any side has, by name."""
    return list(dict.fromkeys(setting for side in sides for setting in side.settings))


def metrics_of(sides: Sequence[Side], brief: bool = False) -> list[Metric]:
    """The numbers that any side has: size, training, quality, then generation by setting; ``brief``: the main ones."""
    figures = (RATE,) if brief else (RATE, BYTES)
    generation = [setting_metric(name, figure) for figure in figures for name in common_settings(sides)]
    present = {key for side in sides for entry in side.entries for key in entry.values}
    return [metric for metric in (*(BRIEF if brief else QUALITY), *generation) if metric.key in present]


def differing(sides: Sequence[Side]) -> list[tuple[str, list[str]]]:
    """The keys whose values differ between sides, with each side's: those that all have before the others.

    ``-`` stands for none, be the key absent or ``None``, ``?`` for one that a partial side does not tell.
    """
    different = []
    for key in dict.fromkeys(key for side in sides for key in side.keys):
        values = [side.keys.get(key, UNKNOWN if side.partial else NONE) for side in sides]
        values = [NONE if value == "None" else value for value in values]
        if len(set(values) - {UNKNOWN}) > 1:
            different.append((key, [_shown(value) for value in values]))
    return sorted(different, key=lambda pair: NONE in pair[1])


def _shown(value: str) -> str:
    return value if len(value) <= SHOWN_VALUE else value[: SHOWN_VALUE - 3] + "..."


def verdict(sides: Sequence[Side]) -> Verdict:
    """Whether losses compare: they do on the same documents, tokens and strides; bits per byte on other tokens too."""
    known = [side for side in sides if side.scored]
    differ = {key for key in SAME if len({side.scored[key] for side in known}) > 1}
    corpora, tokens = differ & set(CORPUS), "tokenizer_hash" in differ
    return Verdict(
        BITS_PER_BYTE if corpora or tokens else LOSS,
        not corpora,
        [*_unknown(sides), *_losses(known, differ), *_speeds(sides)],
    )


def _unknown(sides: Sequence[Side]) -> list[str]:
    unknown = [side.label for side in sides if not side.scored]
    told = "which documents and tokens its losses were measured on: compare them only where these are the same"
    return [f"{label} does not say {told}" for label in unknown]


def _losses(known: Sequence[Side], differ: set[str]) -> Iterable[str]:
    if differ & set(CORPUS):
        yield (
            f"the test documents differ ({_each(known, 'documents')} documents): neither loss nor bits per byte "
            "compares between these studies; they are drawn by bits per byte, and each is to be read by itself"
        )
    elif "tokenizer_hash" in differ:
        yield "the tokenizers differ: losses in nats per token do not compare; bits per byte do, and are compared here"
    elif "target_tokens" in differ:
        yield f"the numbers of target tokens differ ({_each(known, 'target_tokens')}): losses do not compare"
    if "stride" in differ:
        yield (
            f"evaluate.stride differs ({_each(known, 'stride')}): tokens were predicted from contexts of other "
            "lengths, so that losses do not compare exactly"
        )


def _speeds(sides: Sequence[Side]) -> list[str]:
    timed = [side for side in sides if side.settings]
    if len({side.device for side in timed}) <= 1:
        return []
    named = "; ".join(f"{side.label}: {side.device or 'unknown'}" for side in timed)
    return [f"generation was measured on different hardware ({named}): speeds do not compare"]


def _each(sides: Sequence[Side], key: str) -> str:
    return "; ".join(f"{side.label}: {side.scored[key]:,}" for side in sides)


def front_names(side: Side, setting: str, measure: Metric) -> set[str]:
    """The side's models that no other one of it beats in both quality and tokens per second."""
    rate = setting_metric(setting, RATE)
    both = [entry for entry in side.entries if measure.key in entry.values and rate.key in entry.values]
    if not both:
        return set()
    best = non_dominated(
        np.array([[entry.values[measure.key], entry.values[rate.key]] for entry in both]), [True, False]
    )
    return {entry.name for entry, kept in zip(both, best, strict=True) if kept}
