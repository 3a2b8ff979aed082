"""What lm-eval asks for and gets, against plain forward passes."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from tokenizers import Tokenizer

from pipeline.base.errors import UserError
from pipeline.evaluation.adapter import Adapter
from pipeline.evaluation.scoring import Scorer
from pipeline.generation import generate
from pipeline.interop.published import from_published
from pipeline.models import LanguageModel
from tests import fixture
from tests.evaluation.conftest import CONTEXT
from tests.evaluation.test_scoring import obvious

Make = Callable[..., LanguageModel]
BLOCK_LENGTHS = (None, 1, 2, 4)
WORDS = "the_senate_and_house_of_representatives_assembled_to_consider_a_treaty_with_the_western_nations"


def instances(kind: str, arguments: list[tuple[object, ...]]) -> list[Instance]:
    return [Instance(kind, {}, given, index) for index, given in enumerate(arguments)]


def adapter(make: Make, tokenizer: Tokenizer, block_length: int | None, batch_tokens: int | None = None) -> Adapter:
    return Adapter(Scorer(make(block_length), batch_tokens=batch_tokens), tokenizer, end_of_text=0)


@pytest.mark.parametrize("block_length", BLOCK_LENGTHS)
def test_loglikelihood_is_the_sum_from_full_forward_passes(
    make: Make, tokenizer: Tokenizer, block_length: int | None
) -> None:
    lm = adapter(make, tokenizer, block_length)
    pairs = [(WORDS[:context], WORDS[context : context + new]) for context in range(1, 12) for new in (1, 5)]
    pairs += [("", "one"), ("", "x"), (WORDS[:60], "_long"), (WORDS[:3], WORDS[3 : 3 + CONTEXT])]
    for (context, new), result in zip(pairs, lm.loglikelihood(instances("loglikelihood", pairs), True), strict=True):
        ids = (tokenizer.encode(context).ids or [0]) + tokenizer.encode(new).ids
        ids = ids[-(CONTEXT + 1) :]
        values, greedy = obvious(lm.scorer.model, ids, len(ids) - len(new), aligned=True)
        assert result[0] == pytest.approx(sum(values), abs=1e-4), (context, new)
        assert result[1] == all(greedy)


def test_results_come_in_the_order_of_requests_whatever_the_batch(make: Make, tokenizer: Tokenizer) -> None:
    pairs = [(WORDS[: 1 + index % 37], WORDS[40 : 42 + index % 5]) for index in range(64)]
    random.Random(0).shuffle(pairs)
    single, many = (
        adapter(make, tokenizer, 4, batch_tokens).loglikelihood(instances("loglikelihood", pairs), True)
        for batch_tokens in (1, 64 * CONTEXT)
    )
    np.testing.assert_allclose([value for value, _ in single], [value for value, _ in many], atol=1e-4)


def test_a_continuation_beyond_the_context_is_scored_in_pieces(make: Make, tokenizer: Tokenizer) -> None:
    lm = adapter(make, tokenizer, 4)
    [(value, _)] = lm.loglikelihood(instances("loglikelihood", [("ab", WORDS[:50])]), True)
    ids = tokenizer.encode("ab" + WORDS[:50]).ids
    pieces = [(ids[1:26], 1), (ids[25:50], 1), (ids[27:52], 23)]
    assert value == pytest.approx(
        sum(sum(obvious(lm.scorer.model, *piece, aligned=True)[0]) for piece in pieces), abs=1e-3
    )


@pytest.mark.parametrize("block_length", BLOCK_LENGTHS)
def test_rolling_scores_every_token_once_after_end_of_text(
    make: Make, tokenizer: Tokenizer, block_length: int | None
) -> None:
    lm = adapter(make, tokenizer, block_length)
    texts = [WORDS[:5], WORDS[:CONTEXT], WORDS, WORDS[:1]]
    results = lm.loglikelihood_rolling(instances("loglikelihood_rolling", [(text,) for text in texts]), True)
    for text, result in zip(texts, results, strict=True):
        ids = [0, *tokenizer.encode(text).ids]
        expected = 0.0
        for start in range(0, len(ids) - 1, CONTEXT):
            window = ids[start : start + CONTEXT + 1]
            if len(window) < CONTEXT + 1:
                # the last window reaches back, so that its tokens have all the context there can be
                reach = ids[-(CONTEXT + 1) :]
                expected += sum(obvious(lm.scorer.model, reach, len(reach) - len(window) + 1)[0])
            else:
                expected += sum(obvious(lm.scorer.model, window, 1)[0])
        assert result == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("block_length", [None, 4])
def test_generation_stops_at_the_first_stop_text(make: Make, tokenizer: Tokenizer, block_length: int | None) -> None:
    lm = adapter(make, tokenizer, block_length)
    whole = tokenizer.decode(generate(lm.scorer.model, [tokenizer.encode(WORDS[:7]).ids], 8, end_of_text=0)[0])
    stop = whole[3:5]
    arguments = [(WORDS[:7], {"until": [], "max_gen_toks": 8}), (WORDS[:7], {"until": [stop], "max_gen_toks": 8})]
    full, cut = lm.generate_until(instances("generate_until", arguments), True)
    assert full == whole
    assert cut == whole[: whole.index(stop)]


def test_prompts_beyond_the_context_keep_their_end(make: Make, tokenizer: Tokenizer) -> None:
    lm = adapter(make, tokenizer, 4)
    options = {"until": [], "max_gen_toks": 4}
    long, short = lm.generate_until(
        instances("generate_until", [(WORDS, options), (WORDS[-(CONTEXT - 4) :], options)]), True
    )
    assert long == short


def test_what_cannot_be_scored_is_an_error(make: Make, tokenizer: Tokenizer) -> None:
    lm = adapter(make, tokenizer, 4)
    with pytest.raises(UserError, match="nothing to score: '' after 'a' is no token"):
        lm.loglikelihood(instances("loglikelihood", [("a", "")]), True)
    with pytest.raises(UserError, match="nothing to score: ''"):
        lm.loglikelihood_rolling(instances("loglikelihood_rolling", [("",)]), True)
    with pytest.raises(UserError, match="24 new tokens leave no room"):
        lm.generate_until(instances("generate_until", [("a", {"until": [], "max_gen_toks": 24})]), True)


def test_published_adapter_gives_the_same_logits_where_it_is_right() -> None:
    """Left pads as ours; but it masks an end of text that begins a row, and zeroes the last logits of such a row."""
    recorded = fixture.read("adapter", sizes="prefix")
    model = from_published(recorded.config, recorded.state_dict).eval()
    inputs, published = recorded["inputs"], recorded["block_transformer_pad_fa2"]
    pads = model.stride - 1
    tokens = torch.nn.functional.pad(inputs, (pads, 1))
    valid = torch.nn.functional.pad(torch.ones_like(inputs, dtype=torch.bool), (pads, 1))
    with torch.no_grad():
        ours = model(tokens, valid)
        valid[:, pads] = inputs[:, 0] != 0
        masked = model(tokens, valid)
    for row, length in ((0, 11), (1, 7)):
        torch.testing.assert_close(ours[row, :length], published[row, :length], atol=1e-5, rtol=1e-4)
    for row, length in ((2, 11), (3, 5)):
        torch.testing.assert_close(masked[row, :length], published[row, :length], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(ours[row, :length], published[row, :length], atol=1e-2)
    assert (published[3, 5] == 0).all()


def of_tasks(kind: str, arguments: list[tuple[object, ...]], tasks: list[str]) -> list[Instance]:
    return [Instance(kind, {}, given, 0, (task, 0, 1)) for given, task in zip(arguments, tasks, strict=True)]


@pytest.mark.parametrize(
    ("context", "new", "beyond"),
    [
        (WORDS[:20], WORDS[20:25], False),
        (WORDS[:24], WORDS[24:25], False),
        (WORDS[:25], WORDS[25:26], True),
        (WORDS[:1], WORDS[1:26], True),
        ("", WORDS[:24], False),
        ("", WORDS[:25], True),
        (WORDS, "x", True),
    ],
)
@pytest.mark.parametrize("block_length", [None, 4])
def test_requests_beyond_the_context_are_counted_by_task(
    make: Make, tokenizer: Tokenizer, block_length: int | None, context: str, new: str, beyond: bool
) -> None:
    """A context of 24 tokens: that many are read and one more is scored."""
    lm = adapter(make, tokenizer, block_length)
    pairs = [(context, new), ("a", "b"), ("c", "d")]
    lm.loglikelihood(of_tasks("loglikelihood", pairs, ["long", "long", "short"]), True)
    expected = (
        "the context length is 24 tokens; prompts were cut on the left where they and what follows exceed it: "
        "1 of 2 of long"
    )
    assert lm.cut() == (expected if beyond else None)


def test_prompts_to_continue_are_counted_and_rolling_texts_are_not(make: Make, tokenizer: Tokenizer) -> None:
    lm = adapter(make, tokenizer, 4)
    options = {"until": [], "max_gen_toks": 4}
    lm.loglikelihood_rolling(instances("loglikelihood_rolling", [(WORDS,)]), True)
    lm.generate_until(of_tasks("generate_until", [(WORDS[:20], options)], ["qa"]), True)
    assert lm.cut() is None
    lm.generate_until(of_tasks("generate_until", [(WORDS[:21], options), (WORDS, options)], ["qa", "qa"]), True)
    assert str(lm.cut()).endswith("exceed it: 2 of 3 of qa")
