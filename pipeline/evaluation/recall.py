"""Associative recall in context: lines of a city and a number, then a city whose number is asked for.

The text is that of :mod:`pipeline.data.recall`, with the answers of the cities that were asked for before. Right is an
answer that the model finds likelier than the number of every other line, so that guessing finds one in as many as there
are pairs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import UserError
from pipeline.data.recall import CITIES, drawn, lines
from pipeline.evaluation.answers import mean_and_error
from pipeline.evaluation.scoring import Request, Score, Scorer
from pipeline.results.records import RecallScore

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAIRS = (2, 4, 8, 16)
QUERIES = 8


def recall_scores(
    scorer: Scorer, tokenizer: Tokenizer, context: int, examples: int, symbols: int | None = None, seed: int = 0
) -> list[RecallScore]:
    """Accuracy by the number of pairs, over ``examples`` lists of pairs and up to eight queries about each.

    A block transformer's answers begin a block, as what is generated does; those of one that was trained without
    padding stand where its blocks lie. ``by_block_position`` has them as they stand behind a fixed number of pads.
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
    requests = [request for questions in fitting.values() for question in questions for request in question]
    fixed = scorer(requests)
    aligned = scorer(requests, aligned=True) if scorer.padded and scorer.model.stride > 1 else fixed
    found, answers, places = [], iter(aligned), iter(fixed)
    for pairs, questions in fitting.items():
        right = _right(questions, answers)
        accuracy, error = mean_and_error(right.reshape(examples, -1).mean(axis=1))
        where = scorer.block_position(np.array([question[0].first for question in questions]))
        by_position = _shares(_right(questions, places), where, scorer.model.stride)
        found.append(RecallScore(pairs, accuracy, error, len(right), by_position))
    return found


def _right(questions: list[list[Request]], scores: Iterator[Score]) -> npt.NDArray[np.float64]:
    """1 for each question whose right answer, the first, is likelier than the others; takes their scores."""
    sums = [[next(scores).log_probabilities.sum() for _ in question] for question in questions]
    return np.array([own[0] > max(own[1:]) for own in sums], float)


def _shares(right: npt.NDArray[np.float64], where: npt.NDArray[np.integer], block_length: int) -> list[float | None]:
    """The share right at each position of a block; none for a vanilla model."""
    if block_length == 1:
        return []
    each = [right[where == position] for position in range(block_length)]
    return [float(found.mean()) if len(found) else None for found in each]


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
