"""The two tasks made from held-out documents."""

from __future__ import annotations

import random

import pytest

from pipeline.base.errors import UserError
from pipeline.evaluation.local_tasks import CHOICES, CONTINUATION_WORDS, cloze, continuation

NOUNS = "treaty nation harbor river canal bank army navy tariff mail court senate people union"


def document(name: str, sentences: int = 40) -> str:
    generator = random.Random(name)
    drawn = (" ".join(f"{name}{noun}" for noun in generator.choices(NOUNS.split(), k=8)) for _ in range(sentences))
    return "\n".join(f"{sentence} end." for sentence in drawn)


TEXTS = [document(name) for name in ("first", "second", "third", "fourth")]


def test_cloze_asks_for_the_word_that_ended_a_sentence_after_the_text_before_it() -> None:
    for row in cloze(TEXTS):
        name = row["context"].split()[0].removesuffix("end.")[:5]
        source = next(" ".join(text.split()) for text in TEXTS if text.startswith(name) or name in text)
        assert f"{row['context']}{row['target']}." in source
        assert row["target"] == " end"


def test_continuation_has_one_choice_that_follows_the_context_and_three_of_other_documents() -> None:
    flat = [" ".join(text.split()) for text in TEXTS]
    labels = set()
    for row in continuation(TEXTS):
        [source] = [text for text in flat if row["context"] in text]
        for number, choice in enumerate(row["choices"]):
            assert len(choice.split()) == CONTINUATION_WORDS
            assert (f"{row['context']} {choice}" in source) == (number == row["label"])
            assert (choice in source) == (number == row["label"])
        labels.add(row["label"])
    assert labels == set(range(CHOICES))


@pytest.mark.parametrize("build", [cloze, continuation])
def test_rows_are_a_function_of_documents_and_seed(build: object) -> None:
    assert callable(build)
    assert build(TEXTS, seed=3) == build(iter(TEXTS), seed=3)
    assert build(TEXTS, seed=3) != build(TEXTS, seed=4)


def test_a_limit_of_few_examples_spans_the_documents() -> None:
    assert len({row["context"][:4] for row in cloze(TEXTS)[:4]} | {"end."}) > 1
    begun = {
        next(name for name in ("first", "second", "third", "fourth") if name in row["context"])
        for row in cloze(TEXTS)[:4]
    }
    assert begun == {"first", "second", "third", "fourth"}


def test_documents_that_hold_no_example_are_named_as_the_reason() -> None:
    with pytest.raises(UserError, match="'cloze' needs a document with 64 words"):
        cloze(["Too short."])
    with pytest.raises(UserError, match="'continuation' needs two documents"):
        continuation([TEXTS[0]])
