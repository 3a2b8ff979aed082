"""Two zero-shot tasks made from the held-out documents, for studies without a hub: real lm-eval tasks all the same.

``cloze`` has LAMBADA's form: the last word of a passage, given the passage. ``continuation`` has HellaSwag's: which of
four continuations, three of them from other documents, belongs to a passage. Both are pure functions of the documents
and a seed. White space is collapsed; passages end where sentences end.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.base.errors import UserError

EXAMPLES = 1000
CLOZE_WORDS = 64
PASSAGE_WORDS = 48
CONTINUATION_WORDS = 12
CHOICES = 4
SENTENCE_END = re.compile(r"[A-Za-z]{3,}[.!?]")

Row = dict[str, Any]


@dataclass(frozen=True)
class _Document:
    """Words of a text, and the positions of those that end a sentence, in random order."""

    words: list[str]
    ends: list[int]


def cloze(texts: Iterable[str], seed: int = 0) -> list[Row]:
    """``{"context", "target"}``: the target is a blank and the last word of the sentence that ends the passage."""
    rows = []
    for _, document, end in _draws(texts, CLOZE_WORDS, 0, random.Random(seed)):
        passage = document.words[end - CLOZE_WORDS : end]
        rows.append({"context": " ".join(passage), "target": " " + document.words[end].rstrip(".!?")})
    return _some(rows, "cloze", f"a document with {CLOZE_WORDS} words before the end of a sentence")


def continuation(texts: Iterable[str], seed: int = 0) -> list[Row]:
    """``{"context", "choices", "label"}``: what follows the passage, among what follows passages of other documents."""
    generator = random.Random(seed)
    drawn = list(_draws(texts, PASSAGE_WORDS, CONTINUATION_WORDS, generator))
    rows = []
    for number, document, end in drawn:
        others = [other for other in drawn if other[0] != number]  # of another document
        if len(others) < CHOICES - 1:
            continue
        choices = [_following(other, at) for _, other, at in generator.sample(others, CHOICES - 1)]
        label = generator.randrange(CHOICES)
        choices.insert(label, _following(document, end))
        context = " ".join(document.words[end + 1 - PASSAGE_WORDS : end + 1])
        rows.append({"context": context, "choices": choices, "label": label})
    return _some(rows, "continuation", f"two documents with sentences {PASSAGE_WORDS} words from their start")


def _draws(
    texts: Iterable[str], before: int, after: int, generator: random.Random
) -> Iterable[tuple[int, _Document, int]]:
    """Ends of sentences, one per document in turn until :data:`EXAMPLES` are drawn: any limit spans documents."""
    documents = [_document(text, before, after, generator) for text in texts]
    longest = max((len(document.ends) for document in documents), default=0)
    drawn = (
        (number, document, document.ends[turn])
        for turn in range(longest)
        for number, document in enumerate(documents)
        if turn < len(document.ends)
    )
    return [draw for draw, _ in zip(drawn, range(EXAMPLES), strict=False)]


def _document(text: str, before: int, after: int, generator: random.Random) -> _Document:
    words = text.split()
    places = range(before, len(words) - after)
    ends = [place for place in places if SENTENCE_END.fullmatch(words[place])]
    generator.shuffle(ends)
    return _Document(words, ends)


def _following(document: _Document, end: int) -> str:
    return " ".join(document.words[end + 1 : end + 1 + CONTINUATION_WORDS])


def _some(rows: list[Row], task: str, needed: str) -> list[Row]:
    if not rows:
        raise UserError(f"evaluate.tasks: {task!r} needs {needed}, and the held-out documents have none")
    return rows


@dataclass(frozen=True)
class LocalTask:
    """``rows`` makes the documents from the held-out texts; ``form`` is how lm-eval asks and scores them."""

    rows: Callable[..., list[Row]]
    form: dict[str, Any]


_MEAN = {"aggregation": "mean", "higher_is_better": True}

TASKS = {
    "cloze": LocalTask(
        cloze,
        {
            "output_type": "loglikelihood",
            "doc_to_text": "context",
            "doc_to_target": "target",
            "metric_list": [
                {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
                {"metric": "acc", **_MEAN},
            ],
        },
    ),
    "continuation": LocalTask(
        continuation,
        {
            "output_type": "multiple_choice",
            "doc_to_text": "context",
            "doc_to_choice": "choices",
            "doc_to_target": "label",
            "metric_list": [{"metric": "acc", **_MEAN}, {"metric": "acc_norm", **_MEAN}],
        },
    ),
}
"""Every local task: the study's check of names, the harness and `prefetch` read this alone."""


def task_config(name: str, texts: Iterable[str]) -> dict[str, Any]:
    """lm-eval's configuration of a local task over the held-out ``texts``."""
    rows = TASKS[name].rows(texts)

    def documents(**_: Any) -> Any:
        from datasets import Dataset

        return {"test": Dataset.from_list(rows)}

    return {
        "task": name,
        "test_split": "test",
        "custom_dataset": documents,
        "metadata": {"version": 1.0},
        **TASKS[name].form,
    }
