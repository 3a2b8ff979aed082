"""Which token is scored when, with how much context, and what is made of the sums."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.perplexity import (
    Losses,
    bootstrap_stderr,
    document_losses,
    losses_by_position,
    mean_by_block_position,
    unigram_loss,
    windows,
)
from pipeline.evaluation.scoring import Request, Scorer
from pipeline.models import LanguageModel
from tests.evaluation.conftest import CONTEXT
from tests.evaluation.test_scoring import random_tokens

Make = Callable[..., LanguageModel]


@given(st.integers(0, 200), st.integers(1, 40), st.data())
@settings(max_examples=200, deadline=None)
def test_every_token_but_the_first_is_a_target_once_with_context(
    length: int, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    scored = []
    for start, first, end in windows(length, context, stride):
        assert end - 1 - start <= context
        for target in range(first, end):
            assert target - start >= min(target, context - stride + 1)
            scored.append(target)
    assert scored == list(range(1, length))


@pytest.mark.parametrize("block_length", [None, 2, 4])
def test_targets_are_the_documents_tokens_minus_one_each(make: Make, block_length: int | None) -> None:
    documents = [random_tokens(length, length) for length in (0, 1, 2, 3, 25, 60, 101)]
    losses = document_losses(Scorer(make(block_length)), documents, CONTEXT, 8)
    assert losses.targets_by_document.tolist() == [0, 0, 1, 2, 24, 59, 100]
    assert losses.targets_by_block_position.sum() == losses.targets == 186


@pytest.mark.parametrize("block_length", [None, 4])
def test_strides_that_see_the_same_context_agree(make: Make, block_length: int | None) -> None:
    scorer = Scorer(make(block_length))
    documents = [random_tokens(length, length) for length in (5, 18, CONTEXT + 1)]
    losses = [document_losses(scorer, documents, CONTEXT, stride).loss for stride in (1, 7, 12, CONTEXT)]
    assert losses == pytest.approx([losses[0]] * 4, abs=1e-5)


@pytest.mark.parametrize("block_length", [None, 4])
def test_loss_is_the_sum_over_windows_scored_by_hand(make: Make, block_length: int | None) -> None:
    scorer, document = Scorer(make(block_length)), random_tokens(50)
    by_hand = [
        scorer([Request(document[start : target + 1], target - start)])[0].log_probabilities[0]
        for start, first, end in ((0, 1, 25), (8, 25, 33), (16, 33, 41), (24, 41, 49), (32, 49, 50))
        for target in range(first, end)
    ]
    losses = document_losses(scorer, [document], CONTEXT, 8)
    assert losses.nats == pytest.approx(-float(np.sum(by_hand, dtype=np.float64)), abs=1e-3)


def test_position_in_the_block_is_that_of_the_window(make: Make) -> None:
    scorer, document = Scorer(make(4)), random_tokens(11)
    losses = document_losses(scorer, [document], CONTEXT, 12)
    each = -scorer([Request(document)])[0].log_probabilities
    expected = [each[position::4].mean() for position in range(4)]
    assert mean_by_block_position(losses) == pytest.approx(expected, abs=1e-5)
    assert losses.targets_by_block_position.tolist() == [3, 3, 2, 2]


def test_position_in_the_block_without_padding_is_the_documents_but_for_the_first_block(make: Make) -> None:
    """Tokens 1, 2, 3 are decoded at places 0, 1, 2 behind three pads; tokens 4 ... 10 at places 0, 1, 2, 3, 0, 1, 2."""
    scorer, document = Scorer(make(4), padded=False), random_tokens(11)
    losses = document_losses(scorer, [document], CONTEXT, 12)
    by_token = dict(enumerate(-scorer([Request(document)])[0].log_probabilities, start=1))
    places = [(1, 4, 8), (2, 5, 9), (3, 6, 10), (7,)]
    expected = [np.mean([by_token[token] for token in tokens]) for tokens in places]
    assert mean_by_block_position(losses) == pytest.approx(expected, abs=1e-5)
    assert losses.targets_by_block_position.tolist() == [3, 3, 3, 1]


def test_a_document_shorter_than_a_block_fills_the_first_positions_alone(make: Make) -> None:
    losses = document_losses(Scorer(make(4)), [random_tokens(3)], CONTEXT, 12)
    assert len(mean_by_block_position(losses)) == 2


def test_standard_error_is_that_of_resampled_documents() -> None:
    generator = np.random.default_rng(0)
    means = generator.normal(3.0, 0.5, 400)
    losses = _losses(means * 100, np.full(400, 100))
    assert bootstrap_stderr(losses) == pytest.approx(np.std(means) / math.sqrt(400), rel=0.1)
    assert bootstrap_stderr(losses) == bootstrap_stderr(losses)
    assert bootstrap_stderr(_losses(np.array([3.0, 0.0]), np.array([1, 0]))) is None


def _losses(nats: np.ndarray, targets: np.ndarray) -> Losses:
    return Losses(nats, targets, nats.sum(keepdims=True), targets.sum(keepdims=True))


def test_unigram_loss_is_cross_entropy_with_the_smoothed_counts() -> None:
    counts = np.array([0, 3, 1, 0])
    expected = -(math.log(4 / 8) + math.log(1 / 8) + math.log(2 / 8)) / 3
    assert unigram_loss(counts, [[2, 1, 3], [0], [1, 2], []]) == pytest.approx(expected)


def test_positions_are_means_over_chunks_and_reach_past_the_training_length(make: Make) -> None:
    scorer, documents = Scorer(make(4)), [random_tokens(200, 1), random_tokens(30, 2), random_tokens(110, 3)]
    curve = losses_by_position(scorer, documents, 4 * CONTEXT)
    assert curve is not None
    assert (curve.length, curve.chunks) == (96, 3)
    assert curve.starts[0] == 1
    chunks = [documents[0][:96], documents[0][96:192], documents[2][:96]]
    each = -np.mean([scorer([Request(chunk)])[0].log_probabilities for chunk in chunks], axis=0)
    bounds = [*curve.starts, 96]
    expected = [each[low - 1 : high - 1].mean() for low, high in itertools.pairwise(bounds)]
    assert curve.losses == pytest.approx(expected, abs=1e-5)


def test_positions_without_a_chunk_are_none_and_a_limit_bounds_the_chunks(make: Make) -> None:
    scorer = Scorer(make(None))
    assert losses_by_position(scorer, [random_tokens(CONTEXT - 1)], CONTEXT) is None
    curve = losses_by_position(scorer, [random_tokens(200)], CONTEXT, max_tokens=50)
    assert curve is not None
    assert curve.chunks == 2
