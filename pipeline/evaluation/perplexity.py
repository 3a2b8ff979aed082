"""Loss on whole held-out documents, in nats per token, and what else one pass over them tells.

Targets: every token of a document but its first, scored once; the end-of-text token is not among them. So two models
with one tokenizer have the same targets, whatever their family, block length or stride. Bits per byte and word
perplexity divide by the bytes and words of the documents' text, so that models with different tokenizers compare.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.scoring import Request, Scorer, Tokens
from pipeline.results.records import PositionLosses

RESAMPLES = 1000
BUCKETS = 16
FLUSH_TOKENS = 1 << 21


@dataclass(frozen=True)
class Losses:
    """Sums over targets, by document and by position in the block (as the model sees blocks; one for vanilla)."""

    nats_by_document: npt.NDArray[np.float64]
    targets_by_document: npt.NDArray[np.int64]
    nats_by_block_position: npt.NDArray[np.float64]
    targets_by_block_position: npt.NDArray[np.int64]

    @property
    def nats(self) -> float:
        """Summed loss of all targets."""
        return float(self.nats_by_document.sum())

    @property
    def targets(self) -> int:
        """Number of all targets."""
        return int(self.targets_by_document.sum())

    @property
    def loss(self) -> float:
        """Mean loss, nats per target."""
        return self.nats / self.targets


def windows(length: int, context_length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(start, first target, end) of each window over a document of ``length`` tokens.

    Every token but the first is a target of exactly one window. A window starts ``stride`` tokens after the one before,
    so that a multiple of the block length keeps blocks aligned, and gives each target at most ``context_length`` tokens
    of context and, past the first window, at least ``context_length - stride + 1``.
    """
    assert 1 <= stride <= context_length
    start, first = 0, 1
    while first < length:
        end = min(start + context_length + 1, length)
        yield start, first, end
        start, first = start + stride, end


def document_losses(scorer: Scorer, documents: Iterable[Tokens], context_length: int, stride: int) -> Losses:
    """Score documents in windows. A document without a target (fewer than two tokens) counts zero targets."""
    nats: list[float] = []
    targets: list[int] = []
    block_length = scorer.model.stride
    by_position = np.zeros((2, block_length))  # nats, targets
    pending = (
        (index, document, window)
        for index, document in enumerate(_counted(documents, nats, targets))
        for window in windows(len(document), context_length, stride)
    )
    for group in _grouped(pending, FLUSH_TOKENS):
        requests = [Request(document[start:end], first - start) for _, document, (start, first, end) in group]
        for (index, _, _), request, result in zip(group, requests, scorer(requests), strict=True):
            losses = -result.log_probabilities.astype(np.float64)
            nats[index] += float(losses.sum())
            targets[index] += len(losses)
            position = scorer.block_position(np.arange(request.first, len(request.tokens)))
            by_position[0] += np.bincount(position, losses, block_length)
            by_position[1] += np.bincount(position, minlength=block_length)
    return Losses(np.array(nats), np.array(targets), by_position[0], by_position[1].astype(np.int64))


def _counted(documents: Iterable[Tokens], nats: list[float], targets: list[int]) -> Iterator[Tokens]:
    for document in documents:
        nats.append(0.0)
        targets.append(0)
        yield document


Pending = tuple[int, Tokens, tuple[int, int, int]]


def _grouped(pending: Iterable[Pending], budget: int) -> Iterator[list[Pending]]:
    """Lists of windows that hold about ``budget`` tokens together, so that a large corpus passes through."""
    group: list[Pending] = []
    tokens = 0
    for item in pending:
        group.append(item)
        tokens += item[2][2] - item[2][0]
        if tokens >= budget:
            yield group
            group, tokens = [], 0
    if group:
        yield group


def bootstrap_stderr(losses: Losses, seed: int = 0) -> float | None:
    """Standard error of the loss by resampling documents; ``None`` where fewer than two hold a target."""
    scored = losses.targets_by_document > 0
    nats, targets = losses.nats_by_document[scored], losses.targets_by_document[scored]
    if len(nats) < 2:
        return None
    generator = np.random.default_rng(seed)
    draws = (generator.integers(len(nats), size=len(nats)) for _ in range(RESAMPLES))
    return float(np.std([nats[draw].sum() / targets[draw].sum() for draw in draws], ddof=1))


def unigram_loss(counts: npt.NDArray[np.int64], documents: Iterable[Tokens]) -> float:
    """Loss of the training split's token frequencies, each count plus one, on the same targets."""
    log_probabilities = np.log(counts + 1.0) - math.log(float(counts.sum()) + len(counts))
    nats, targets = 0.0, 0
    for document in documents:
        nats -= float(log_probabilities[np.asarray(document[1:], dtype=np.int64)].sum())
        targets += max(len(document) - 1, 0)
    return nats / targets


def losses_by_position(
    scorer: Scorer, documents: Iterable[Tokens], length: int, max_tokens: int | None = None
) -> PositionLosses | None:
    """Loss by position in the context, on disjoint chunks of ``length`` tokens (PG19's form; paper, section 3.6).

    Every chunk has every position, so that the buckets differ in context and not in text. Documents' remainders are
    dropped. ``None`` where no document fills a chunk.
    """
    chunks = (
        document[start : start + length]
        for document in documents
        for start in range(0, len(document) - length + 1, length)
    )
    limit = None if max_tokens is None else max(max_tokens // length, 1)
    requests = [Request(chunk) for chunk in itertools.islice(chunks, limit)]
    if not requests:
        return None
    mean = -np.mean([result.log_probabilities for result in scorer(requests)], axis=0, dtype=np.float64)
    starts = np.unique(np.linspace(1, length, BUCKETS + 1).astype(int))[:-1]
    # mean[i] is of position i + 1, as position 0 is no target; buckets are cut where each but the first starts.
    losses = [float(bucket.mean()) for bucket in np.split(mean, starts[1:] - 1)]
    return PositionLosses(length, len(requests), starts.tolist(), losses)


def mean_by_block_position(losses: Losses) -> list[float]:
    """Loss at each position of a block, up to the last that a document is long enough to have a target at."""
    sums, counts = losses.nats_by_block_position, losses.targets_by_block_position
    return [float(nats / count) for nats, count in zip(sums, counts, strict=True) if count]
