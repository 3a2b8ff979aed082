"""The copy probe on models whose answer is known: one that copies by construction, one that never does."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.evaluation.copying import CUE, KINDS, OFFSETS, SPANS, copy_scores, distances
from pipeline.evaluation.scoring import Request, Scorer
from pipeline.models import LanguageModel
from pipeline.results.probes import by_offset, copied
from pipeline.results.records import CopyScore
from tests.evaluation.oracles import Oracle

CONTEXT = 140
VOCABULARY = 512
WORDS = np.arange(VOCABULARY)
DOCUMENTS = [np.random.default_rng(number).integers(VOCABULARY, size=300) for number in range(3)]
MATCH = 4
SURE = 100.0


class Known(Oracle):
    """Predicts, of all tokens alike, or for sure what followed the last ``MATCH`` tokens where they stood before."""

    def __init__(self, stride: int, copies: bool) -> None:
        super().__init__(stride, VOCABULARY, CONTEXT)
        self.copies = copies

    def hidden(self, tokens: Tensor, valid: Tensor | None = None, *, padded_blocks: bool = True) -> Tensor:
        stride = self.config.stride
        hidden = torch.zeros(len(tokens), tokens.shape[1] - stride, VOCABULARY)
        for row, text in enumerate(tokens.tolist() if self.copies else []):
            followed: dict[tuple[int, ...], int] = {}
            for position in range(MATCH, len(text)):
                seen = tuple(text[position - MATCH : position])
                if position >= stride and seen in followed:
                    hidden[row, position - stride, followed[seen]] = SURE
                followed[seen] = text[position]
        return hidden


def probe(model: LanguageModel, examples: int = 2) -> list[CopyScore]:
    return copy_scores(Scorer(model), DOCUMENTS, WORDS, CONTEXT, examples)


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_a_model_that_copies_gives_nothing_at_every_offset(stride: int) -> None:
    scores = probe(Known(stride, copies=True))
    assert max(score.second for score in scores) == pytest.approx(0.0, abs=1e-6)
    assert statistics.fmean(score.first for score in scores) == pytest.approx(math.log(VOCABULARY))
    offsets = by_offset(scores, stride)
    assert list(offsets) == list(range(stride))
    assert [copied(found) for found in offsets.values()] == pytest.approx([0.0] * stride, abs=1e-6)


@pytest.mark.parametrize("stride", [1, 4])
def test_a_model_that_never_copies_gives_the_entropy(stride: int) -> None:
    for score in probe(Known(stride, copies=False)):
        assert (score.first, score.second) == pytest.approx((math.log(VOCABULARY), math.log(VOCABULARY)))
        assert score.stderr == pytest.approx(0.0, abs=1e-6)


def test_every_offset_kind_and_span_is_tried_equally_often() -> None:
    points = [(score.kind, score.span, score.distance) for score in probe(Known(1, copies=False), examples=1)]
    assert len(set(points)) == len(points)
    assert {kind for kind, _, _ in points} == set(KINDS)
    assert {(span, distance) for _, span, distance in points} == {
        (span, power + offset) for span, power in ((16, 32), (16, 64), (32, 32), (32, 64)) for offset in range(OFFSETS)
    }
    assert distances(64, CONTEXT) == []
    assert distances(64, 2048)[:9] == [*range(64, 72), 128]
    assert distances(SPANS[0], 2048)[-1] == 1024 + OFFSETS - 1


def test_both_families_get_the_same_texts_and_these_are_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, list[Request]] = {}
    for stride in (1, 4):
        scorer = Scorer(Known(stride, copies=False))
        honest = Scorer.__call__

        def keep(self: Scorer, requests: list[Request], stride: int = stride, honest: Callable = honest) -> object:  # type: ignore[type-arg]
            asked[stride] = requests
            return honest(self, requests)

        with monkeypatch.context() as patch:
            patch.setattr(Scorer, "__call__", keep)
            scores = copy_scores(scorer, DOCUMENTS, WORDS, CONTEXT, 1)
    assert [one.tokens.tolist() for one in asked[1]] == [other.tokens.tolist() for other in asked[4]]  # type: ignore[union-attr]
    held_out = " ".join(map(str, np.concatenate(DOCUMENTS)))
    for score, request in zip(scores, asked[1], strict=True):
        lead = request.first - CUE
        first = request.tokens[lead : lead + score.span]
        second = request.tokens[lead + score.distance :]
        assert first.tolist() == second.tolist()  # type: ignore[union-attr]
        assert (" ".join(map(str, request.tokens[: lead + score.distance])) in held_out) == (score.kind == "text")


def test_a_context_or_a_text_too_short_is_an_error() -> None:
    with pytest.raises(
        UserError, match=r"evaluate.copy: a context of 64 tokens is too short; the shortest copies take"
    ):
        copy_scores(Scorer(Known(1, copies=False)), DOCUMENTS, WORDS, 64, 1)
    with pytest.raises(UserError, match=r"evaluate.copy: 100 tokens are held out; at least 140 are needed"):
        copy_scores(Scorer(Known(1, copies=False)), [np.arange(100)], WORDS, CONTEXT, 1)
