"""The copy probe: a span of tokens that stands twice, and what its second copy costs beside the first.

A text is ``lead``, span, gap and the span again. Lead, span and gap are random tokens, or held-out text in which the
span is repeated where the text went on otherwise:

    lead (16 to 23) | span | gap | span          distance = span + gap: from one copy to the other

A distance is a power of two and 0 to 7 more, so that for a block transformer of block length 8 or a divisor of it every
offset between the copies, modulo the block length, is tried equally often. All models get the same texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import UserError
from pipeline.evaluation.answers import mean_and_error
from pipeline.evaluation.scoring import Request, Scorer
from pipeline.results.records import CopyScore

if TYPE_CHECKING:
    from pipeline.evaluation.scoring import Tokens

KINDS = ("random", "text")
SPANS = (16, 32, 64)
OFFSETS = 8
LEAD = 16
CUE = 8
"""The first tokens of a copy are what tells that it is one, and are not scored: a block of length 8 has passed then."""


def copy_scores(
    scorer: Scorer,
    documents: Iterable[Tokens],
    vocabulary: npt.NDArray[np.int64],
    context: int,
    examples: int,
    seed: int = 0,
) -> list[CopyScore]:
    """The loss of both copies by kind, span and distance, over ``examples`` texts each.

    ``vocabulary`` are the tokens that random texts are drawn from. Raises :class:`UserError` where a context of
    ``context`` tokens has room for no text, or the documents hold too little.
    """
    text = np.concatenate([np.zeros(0, np.int64), *(np.asarray(document, np.int64) for document in documents)])
    points = [(kind, span, distance) for kind in KINDS for span in SPANS for distance in distances(span, context)]
    if not points:
        least = length_of(SPANS[0], 2 * SPANS[0] + OFFSETS - 1)
        raise UserError(f"evaluate.copy: a context of {context} tokens is too short; the shortest copies take {least}")
    if len(text) < context:
        raise UserError(f"evaluate.copy: {len(text)} tokens are held out; at least {context} are needed")
    texts = {point: _texts(*point, text if point[0] == "text" else vocabulary, examples, seed) for point in points}
    scored = iter(scorer([Request(tokens, lead + CUE) for of_point in texts.values() for lead, tokens in of_point]))
    return [_score(point, [next(scored).log_probabilities for _ in of_point]) for point, of_point in texts.items()]


def distances(span: int, context: int) -> list[int]:
    """The distances at which a span is repeated: as many as the context has room for."""
    powers = itertools.takewhile(
        lambda power: length_of(span, power + OFFSETS - 1) <= context, (max(span, 32) << n for n in itertools.count())
    )
    return [power + offset for power in powers for offset in range(OFFSETS)]


def length_of(span: int, distance: int) -> int:
    """Tokens of the longest text."""
    return LEAD + OFFSETS - 1 + distance + span


def _texts(
    kind: str, span: int, distance: int, source: npt.NDArray[np.int64], examples: int, seed: int
) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """Where the first copy begins, and the text, for each example."""
    generator = np.random.default_rng([seed, KINDS.index(kind), span, distance])
    texts = []
    for _ in range(examples):
        lead = LEAD + int(generator.integers(OFFSETS))
        length = lead + distance
        start = int(generator.integers(len(source) - length + 1)) if kind == "text" else 0
        before = source[start : start + length] if kind == "text" else generator.choice(source, length)
        texts.append((lead, np.concatenate([before, before[lead : lead + span]])))
    return texts


def _score(point: tuple[str, int, int], log_probabilities: list[npt.NDArray[np.float32]]) -> CopyScore:
    """From those of each text after the first copy's cue: the first copy's stand first, the second's last."""
    kept = point[1] - CUE
    first, _ = mean_and_error(-each[:kept].mean(dtype=np.float64) for each in log_probabilities)
    second, error = mean_and_error(-each[-kept:].mean(dtype=np.float64) for each in log_probabilities)
    return CopyScore(*point, first, second, error, len(log_probabilities))
