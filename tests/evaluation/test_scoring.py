"""Scores against plain forward passes, one token at a time."""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline.base.errors import UserError
from pipeline.base.progress import Progress
from pipeline.evaluation.scoring import Request, Scorer
from pipeline.generation import generate
from pipeline.models import LanguageModel
from tests.evaluation.conftest import VOCABULARY

Make = Callable[..., LanguageModel]


def obvious(
    model: LanguageModel, tokens: list[int], first: int, aligned: bool = False
) -> tuple[list[float], list[bool]]:
    """A forward pass for every target, over what precedes it alone and the target: row T - first of T tokens."""
    pads = next(n for n in range(model.stride) if (n + first) % model.stride == 0) if aligned else model.stride - 1
    values, greedy = [], []
    for end in range(first + 1, len(tokens) + 1):
        row = torch.tensor([[0] * pads + tokens[:end]])
        valid = torch.tensor([[False] * pads + [True] * end])
        with torch.no_grad():
            logits = model(row, valid)[0, -1].double()
        values.append(float(logits.log_softmax(0)[tokens[end - 1]]))
        greedy.append(int(logits.argmax()) == tokens[end - 1])
    return values, greedy


def random_tokens(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(2, 258, length).tolist()


@pytest.mark.parametrize(
    ("block_length", "embedder"), [(None, "lookup"), (1, "lookup"), (2, "lookup"), (4, "lookup"), (4, "roberta")]
)
def test_every_context_length_modulo_the_block_matches_forward_passes(
    make: Make, block_length: int | None, embedder: str
) -> None:
    model = make(block_length, embedder)
    requests = [Request(random_tokens(length, length), first) for length in range(2, 11) for first in (1, length - 1)]
    for request, result in zip(requests, Scorer(model)(requests), strict=True):
        values, greedy = obvious(model, list(request.tokens), request.first)
        np.testing.assert_allclose(result.log_probabilities, values, atol=2e-5)
        assert result.greedy.tolist() == greedy


@pytest.mark.parametrize(("block_length", "embedder"), [(None, "lookup"), (2, "lookup"), (4, "lookup"), (4, "roberta")])
@pytest.mark.parametrize("batch_tokens", [1, 10**6])
def test_aligned_every_first_target_begins_a_block(
    make: Make, block_length: int | None, embedder: str, batch_tokens: int
) -> None:
    model = make(block_length, embedder)
    requests = [Request(random_tokens(length, length), first) for length in range(2, 14) for first in (1, length - 1)]
    for request, result in zip(requests, Scorer(model, batch_tokens)(requests, aligned=True), strict=True):
        values, greedy = obvious(model, list(request.tokens), request.first, aligned=True)
        np.testing.assert_allclose(result.log_probabilities, values, atol=2e-5)
        assert result.greedy.tolist() == greedy


@pytest.mark.parametrize("block_length", [2, 4])
def test_what_the_model_generates_is_greedy_where_it_is_aligned(make: Make, block_length: int) -> None:
    model = make(block_length)
    for length in range(1, 10):
        prompt = random_tokens(length, length)
        (generated,) = generate(model, [prompt], 6)
        (score,) = Scorer(model)([Request([*prompt, *generated], length)], aligned=True)
        assert score.greedy.all()


def test_a_model_trained_without_padding_is_scored_without_it_wherever_a_block_precedes(make: Make) -> None:
    model = make(4)
    for length, aligned in itertools.product(range(2, 12), (False, True)):
        tokens = random_tokens(length, length)
        for first in (1, max(length - 2, 1)):
            (score,) = Scorer(model, padded=False)([Request(tokens, first)], aligned)
            padded, _ = obvious(model, tokens, first)
            with torch.no_grad():
                plain = model(torch.tensor([tokens]))[0].double().log_softmax(-1)
            for position in range(first, length):
                expected = float(plain[position - 4, tokens[position]]) if position >= 4 else padded[position - first]
                assert score.log_probabilities[position - first] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(("block_length", "embedder"), [(None, "lookup"), (2, "lookup"), (4, "lookup"), (4, "roberta")])
def test_a_context_that_several_continuations_share_changes_nothing(
    make: Make, block_length: int | None, embedder: str, padded: bool
) -> None:
    model = make(block_length, embedder)
    contexts = [random_tokens(length, length) for length in (3, 4, 9, 10, 13)]
    requests = [
        Request([*context, *random_tokens(length, 100 + length)], len(context))
        for context in contexts
        for length in (1, 4, 7)
    ]
    together, small = Scorer(model, 10**6, padded)(requests), Scorer(model, 40, padded)(requests)
    for request, score, other in zip(requests, together, small, strict=True):
        (alone,) = Scorer(model, padded=padded)([request])
        for found in (score, other):
            np.testing.assert_allclose(found.log_probabilities, alone.log_probabilities, atol=2e-5)
            assert found.greedy.tolist() == alone.greedy.tolist()
        if padded:
            np.testing.assert_allclose(
                score.log_probabilities, obvious(model, list(request.tokens), request.first)[0], atol=2e-5
            )


@pytest.mark.parametrize("embedder", ["lookup", "roberta"])
def test_batches_and_what_pads_them_change_nothing(make: Make, embedder: str) -> None:
    model = make(4, embedder)
    requests = [Request(random_tokens(length, length)) for length in (3, 24, 5, 17, 2, 24, 9)]
    alone = Scorer(model, batch_tokens=1)(requests)
    together = Scorer(model, batch_tokens=10**6)(requests)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-5)


def test_the_likeliest_token_is_greedy_and_the_rest_is_not(make: Make) -> None:
    model = make(2)
    tokens = random_tokens(7)
    with torch.no_grad():
        logits = model(torch.tensor([[0, *tokens]]), torch.tensor([[False] + [True] * 7]))[0, -1]
    best, worst = int(logits.argmax()), int(logits.argmin())
    likely, unlikely = Scorer(model)([Request([*tokens[:-1], token], 6) for token in (best, worst)])
    assert likely.greedy.tolist() == [True]
    assert unlikely.greedy.tolist() == [False]
    assert likely.log_probabilities[0] > -np.log(VOCABULARY) > unlikely.log_probabilities[0]


def test_weights_that_diverged_are_an_error_and_no_score(make: Make) -> None:
    model = make(None)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="4 of 4 log-probabilities are not finite"):
        Scorer(model)([Request(random_tokens(5))])


@pytest.mark.parametrize("aligned", [False, True])
def test_a_line_tells_how_many_requests_are_scored(make: Make, monkeypatch: pytest.MonkeyPatch, aligned: bool) -> None:
    monkeypatch.setattr("pipeline.base.progress.LOG_SECONDS", 0)
    stream = io.StringIO()
    progress = functools.partial(Progress, "cell", stream=stream, unit="request")
    requests = [Request(random_tokens(9, seed), first) for seed, first in enumerate((1, 1, 2, 2, 3))]
    Scorer(make(4), batch_tokens=20, progress=progress)(requests, aligned)
    told = [line.split("  ")[:2] for line in stream.getvalue().splitlines()]
    assert told == [["cell", f"request {done}/5"] for done in (0, 2, 4)]
