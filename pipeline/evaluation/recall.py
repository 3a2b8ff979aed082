"""Associative recall in context: lines of a city and a number, then a city whose number is asked for.

The text is that of :mod:`pipeline.data.recall`, with the answers of the cities that were asked for before. Right is an
answer that the model finds likelier than the number of every other line, so that guessing finds one in as many as there
are pairs.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from pipeline.base.errors import UserError
from pipeline.data.recall import CITIES, drawn, lines
from pipeline.evaluation.answers import mean_and_error
from pipeline.evaluation.scoring import Request, Scorer
from pipeline.results.records import RecallScore

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAIRS = (2, 4, 8, 16)
QUERIES = 8


def recall_scores(
    scorer: Scorer, tokenizer: Tokenizer, context: int, examples: int, symbols: int | None = None, seed: int = 0
) -> list[RecallScore]:
    """Accuracy by the number of pairs, over ``examples`` lists of pairs and up to eight queries about each.

    ``symbols``: cities and numbers that pairs are drawn from, ``None`` for all. Numbers of pairs that exceed them, or
    whose text exceeds ``context`` tokens, are left out. Raises :class:`UserError` if no text fits.
    """
    possible = [pairs for pairs in PAIRS if pairs <= (symbols or len(CITIES))]
    asked = {pairs: _questions(tokenizer, pairs, examples, symbols, seed) for pairs in possible}
    fitting = {
        pairs: questions
        for pairs, questions in asked.items()
        if max(len(request.tokens) for question in questions for request in question) <= context
    }
    if not fitting:
        raise UserError(f"evaluate.recall: a context of {context} tokens is too short for {PAIRS[0]} pairs")
    scored = iter(scorer([request for questions in fitting.values() for question in questions for request in question]))
    found = []
    for pairs, questions in fitting.items():
        right = np.array([_is_right([next(scored).log_probabilities.sum() for _ in each]) for each in questions], float)
        accuracy, error = mean_and_error(right.reshape(examples, -1).mean(axis=1))
        found.append(RecallScore(pairs, accuracy, error, len(right)))
    return found


def _is_right(log_likelihoods: list[float]) -> bool:
    """Whether the first, the right answer's, is the greatest."""
    return log_likelihoods[0] > max(log_likelihoods[1:])


def _questions(tokenizer: Tokenizer, pairs: int, examples: int, symbols: int | None, seed: int) -> list[list[Request]]:
    """For each query its possible answers, the right one first."""
    generator = random.Random(f"{seed} {pairs}")
    questions = []
    for _ in range(examples):
        listed, asked = drawn(pairs, generator, symbols)
        for place, (city, number) in enumerate(asked[:QUERIES]):
            before = f"{lines(listed)}\n{lines(asked[:place])}{city}"
            answers = (number, *(other for _, other in listed if other != number))
            questions.append([_request(tokenizer, before, f" {answer}") for answer in answers])
    return questions


def _request(tokenizer: Tokenizer, before: str, answer: str) -> Request:
    """Both are encoded as one text, as lm-eval does."""
    first = len(tokenizer.encode(before, add_special_tokens=False).ids)
    return Request(tokenizer.encode(before + answer, add_special_tokens=False).ids, first)
