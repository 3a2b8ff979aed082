"""Associative recall of models whose answers are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.data.recall import CITIES
from pipeline.evaluation.recall import PAIRS, _questions, recall_scores
from pipeline.evaluation.scoring import Scorer
from pipeline.models import LanguageModel
from tests.evaluation.oracles import Oracle

VOCABULARY = 258


class Reader(Oracle):
    """Knows what followed the text since the last line break, a byte per token, where it stood before; else nothing.

    ``wrong`` makes it find all answers but those likely.
    """

    def __init__(self, line_break: int, wrong: bool = False) -> None:
        super().__init__(1, VOCABULARY, 1024)
        self.line_break, self.sure = line_break, -50.0 if wrong else 50.0

    def hidden(self, tokens: Tensor, valid: Tensor | None = None, *, padded_blocks: bool = True) -> Tensor:
        hidden = torch.zeros(len(tokens), tokens.shape[1] - 1, VOCABULARY)
        for row, text in enumerate(tokens.tolist()):
            followed: dict[tuple[int, ...], int] = {}
            line: tuple[int, ...] = ()
            for position, token in enumerate(text):
                if position and line in followed:
                    hidden[row, position - 1, followed[line]] = self.sure
                followed[line] = token
                line = () if token == self.line_break else (*line, token)
        return hidden


def probe(tokenizer: Tokenizer, context: int = 1024, wrong: bool = False, examples: int = 3) -> dict[int, float]:
    (line_break,) = tokenizer.encode("\n").ids
    scores = recall_scores(Scorer(Reader(line_break, wrong)), tokenizer, context, examples)
    assert [score.queries for score in scores] == [examples * min(score.pairs, 8) for score in scores]
    return {score.pairs: score.accuracy for score in scores}


def test_a_model_that_looks_keys_up_answers_all_and_its_opposite_none(tokenizer: Tokenizer) -> None:
    assert probe(tokenizer) == dict.fromkeys(PAIRS, 1.0)
    assert probe(tokenizer, wrong=True) == dict.fromkeys(PAIRS, 0.0)


def test_pairs_are_of_the_first_symbols_and_no_more_than_these(tokenizer: Tokenizer) -> None:
    asked = {pairs: _questions(tokenizer, pairs, 20, 8, 0) for pairs in (2, 8)}
    texts = [
        tokenizer.decode(list(request.tokens)) for each in asked.values() for question in each for request in question
    ]
    assert {city for text in texts for city in text.split()[::2]} == set(CITIES[:8])
    (line_break,) = tokenizer.encode("\n").ids
    scores = recall_scores(Scorer(Reader(line_break)), tokenizer, 1024, 2, symbols=8)
    assert {score.pairs: score.accuracy for score in scores} == {2: 1.0, 4: 1.0, 8: 1.0}


def test_what_the_context_has_no_room_for_is_not_asked(tokenizer: Tokenizer) -> None:
    assert list(probe(tokenizer, context=220)) == [2, 4, 8]
    with pytest.raises(UserError, match=r"evaluate.recall: a context of 20 tokens is too short for 2 pairs"):
        probe(tokenizer, context=20)


class Starts(Reader):
    """A block transformer that knows what the reader knows of tokens that begin a block, and nothing of the others."""

    def __init__(self, line_break: int, stride: int) -> None:
        super().__init__(line_break)
        self.config.stride = stride

    def hidden(self, tokens: Tensor, valid: Tensor | None = None, *, padded_blocks: bool = True) -> Tensor:
        pads = 0 if valid is None else int((~valid[0]).sum())
        known = super().hidden(tokens[:, pads:])  # row i is of token i + 1
        behind = torch.nn.functional.pad(known, (0, 0, pads + 1, 0))  # row p is of position p
        behind[:, torch.arange(behind.shape[1]) % self.config.stride != 0] = 0
        return behind[:, self.config.stride :]


@pytest.fixture
def words() -> Tokenizer:
    """Every city, every number with the blank before it and every line break a token."""
    pieces = ["\n", *CITIES, *(f" {number}" for number in range(100))]
    tokenizer = Tokenizer(models.WordLevel({piece: place for place, piece in enumerate(pieces)}, unk_token="\n"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n| \d+|[^\s\d]+"), "isolated")
    return tokenizer


@pytest.mark.parametrize("length", [2, 4])
@pytest.mark.parametrize("padded", [True, False])
def test_answers_begin_a_block_and_those_inside_one_are_told_apart(words: Tokenizer, length: int, padded: bool) -> None:
    scores = recall_scores(Scorer(Starts(0, length), padded=padded), words, 1024, 3)
    assert [score.pairs for score in scores] == list(PAIRS)
    for score in scores:
        begins, *inside = score.by_block_position
        assert begins in (1.0, None)
        assert set(inside) <= {0.0, None}
        assert (score.accuracy == 1.0) == padded


def test_a_model_that_knows_nothing_guesses(make: Callable[..., LanguageModel], tokenizer: Tokenizer) -> None:
    """Random weights: near one in as many as there are pairs, in both families and with an error that says so."""
    for length in (None, 4):
        for score in recall_scores(Scorer(make(length)), tokenizer, 80, 10):
            assert score.stderr is not None
            assert abs(score.accuracy - 1 / score.pairs) <= 4 * score.stderr
