"""What evaluation found at many places, a place a number, and the few numbers that sum it up as metrics."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.results.records import CopyScore, EvaluateResult, Measure, PositionLosses

NATS = "nats per token"


@dataclass(frozen=True)
class Detail:
    """One number of a probe: ``kind`` is its prompt or text, ``tokens`` how long what it reads is, ``place`` where."""

    probe: str
    kind: str
    tokens: int | None
    place: int
    value: float
    stderr: float | None = None


def details(record: EvaluateResult) -> list[Detail]:
    """Every number of every probe. Places: percent of depth, tokens of context or distance, block positions, pairs."""
    return [
        *(Detail("needle", score.prompt, score.length, score.depth, score.accuracy) for score in record.needle),
        *(
            Detail("context", "loss", curve.length, start, loss)
            for curve in record.loss_by_context
            for start, loss in zip(curve.starts, curve.losses, strict=True)
        ),
        *(
            Detail("block_position", "loss", None, position, loss)
            for position, loss in enumerate(record.loss_by_block_position, start=1)
        ),
        *(
            Detail("copy", f"{score.kind} {which}", score.span, score.distance, value, error)
            for score in record.copies
            for which, value, error in (("first", score.first, None), ("second", score.second, score.stderr))
        ),
        *(Detail("recall", "pairs", None, score.pairs, score.accuracy, score.stderr) for score in record.recall),
        *(
            Detail("recall", f"{score.pairs} pairs by block position", None, position, share)
            for score in record.recall
            for position, share in enumerate(score.by_block_position, start=1)
            if share is not None
        ),
    ]


def summaries(record: EvaluateResult) -> dict[str, tuple[Measure, float]]:
    """The metrics that sum the probes up, by key, each with its declaration."""
    return dict(itertools.chain(_needles(record), _contexts(record.loss_by_context), _copies(record), _recall(record)))


def copied(scores: Iterable[CopyScore]) -> float:
    """What is left of the first copies' nats in the second ones: 0 for a model that copies, 1 for one that does not."""
    listed = list(scores)
    first = sum(score.first for score in listed)
    return sum(score.second for score in listed) / first if first else math.nan


def _needles(record: EvaluateResult) -> Iterator[tuple[str, tuple[Measure, float]]]:
    for prompt in dict.fromkeys(score.prompt for score in record.needle):
        accuracy = statistics.fmean(score.accuracy for score in record.needle if score.prompt == prompt)
        yield f"needle_{prompt}", (Measure(f"Needles found, {prompt} prompt", lower=False, quality=True), accuracy)


def _contexts(curves: Iterable[PositionLosses]) -> Iterator[tuple[str, tuple[Measure, float]]]:
    for curve in curves:
        ends = [*curve.starts[1:], curve.length]
        sizes = [end - start for start, end in zip(curve.starts, ends, strict=True)]
        mean = sum(loss * size for loss, size in zip(curve.losses, sizes, strict=True)) / sum(sizes)
        end = Measure(f"Loss at the end of {curve.length} tokens", NATS, lower=True, quality=True)
        yield f"loss_at_{curve.length}", (end, curve.losses[-1])
        whole = Measure(f"Loss over {curve.length} tokens", NATS, lower=True, quality=True)
        yield f"loss_at_{curve.length}_mean", (whole, mean)


def _copies(record: EvaluateResult) -> Iterator[tuple[str, tuple[Measure, float]]]:
    for kind in dict.fromkeys(score.kind for score in record.copies):
        mine = [score for score in record.copies if score.kind == kind]
        second = statistics.fmean(score.second for score in mine)
        yield f"copy_{kind}_loss", (Measure(f"Loss of copies of {kind}", NATS, lower=True, quality=True), second)
        left = Measure(f"Copies' part of the first loss, {kind}", lower=True, quality=True)
        yield f"copy_{kind}_left", (left, copied(mine))
        for offset, scores in by_offset(mine, record.cell.block_length or 1).items():
            at = Measure(f"{left.label}, offset {offset}", lower=True, column=False, quality=True)
            yield f"copy_{kind}_left_offset_{offset}", (at, copied(scores))


def _recall(record: EvaluateResult) -> Iterator[tuple[str, tuple[Measure, float]]]:
    for score in record.recall:
        yield (
            f"recall_{score.pairs}",
            (Measure(f"Recall of {score.pairs} pairs", lower=False, quality=True), score.accuracy),
        )


def by_offset(scores: Iterable[CopyScore], block_length: int) -> dict[int, list[CopyScore]]:
    """The scores by their distance modulo the block length: 0 where both copies lie in the blocks alike."""
    grouped: dict[int, list[CopyScore]] = {}
    for score in sorted(scores, key=lambda score: score.distance % block_length):
        grouped.setdefault(score.distance % block_length, []).append(score)
    return grouped
