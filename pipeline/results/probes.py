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
        *(Detail("needle", each.prompt, each.length, each.depth, each.accuracy) for each in record.needle),
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
            Detail("copy", f"{each.kind} {which}", each.span, each.distance, value, error)
            for each in record.copies
            for which, value, error in (("first", each.first, None), ("second", each.second, each.stderr))
        ),
        *(Detail("recall", "pairs", None, each.pairs, each.accuracy, each.stderr) for each in record.recall),
    ]


def summaries(record: EvaluateResult) -> dict[str, tuple[Measure, float]]:
    """The metrics that sum the probes up, by key, each with its declaration."""
    return dict(itertools.chain(_needles(record), _contexts(record.loss_by_context), _copies(record), _recall(record)))


def copied(scores: Iterable[CopyScore]) -> float:
    """What is left of the first copies' nats in the second ones: 0 for a model that copies, 1 for one that does not."""
    listed = list(scores)
    first = sum(each.first for each in listed)
    return sum(each.second for each in listed) / first if first else math.nan


def _needles(record: EvaluateResult) -> Iterator[tuple[str, tuple[Measure, float]]]:
    for prompt in dict.fromkeys(each.prompt for each in record.needle):
        found = statistics.fmean(each.accuracy for each in record.needle if each.prompt == prompt)
        yield f"needle_{prompt}", (Measure(f"Needles found, {prompt} prompt", lower=False, quality=True), found)


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
    for kind in dict.fromkeys(each.kind for each in record.copies):
        mine = [each for each in record.copies if each.kind == kind]
        second = statistics.fmean(each.second for each in mine)
        yield f"copy_{kind}_loss", (Measure(f"Loss of copies of {kind}", NATS, lower=True, quality=True), second)
        left = Measure(f"Copies' part of the first loss, {kind}", lower=True, quality=True)
        yield f"copy_{kind}_left", (left, copied(mine))
        for offset, scores in by_offset(mine, record.cell.block_length or 1).items():
            at = Measure(f"{left.label}, offset {offset}", lower=True, column=False, quality=True)
            yield f"copy_{kind}_left_offset_{offset}", (at, copied(scores))


def _recall(record: EvaluateResult) -> Iterator[tuple[str, tuple[Measure, float]]]:
    for each in record.recall:
        yield (
            f"recall_{each.pairs}",
            (Measure(f"Recall of {each.pairs} pairs", lower=False, quality=True), each.accuracy),
        )


def by_offset(scores: Iterable[CopyScore], block_length: int) -> dict[int, list[CopyScore]]:
    """The scores by their distance modulo the block length: 0 where both copies lie in the blocks alike."""
    found: dict[int, list[CopyScore]] = {}
    for each in sorted(scores, key=lambda each: each.distance % block_length):
        found.setdefault(each.distance % block_length, []).append(each)
    return found
