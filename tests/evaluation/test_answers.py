"""Bits per byte and margins of right answers, against the model run on each text by itself."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from pipeline.evaluation import local_tasks
from pipeline.evaluation.adapter import Adapter
from pipeline.evaluation.harness import manager_for, run_tasks
from pipeline.evaluation.scoring import Scorer
from pipeline.evaluation.task_data import leaves
from pipeline.models import LanguageModel
from pipeline.results.records import TaskScore

Make = Callable[..., LanguageModel]
WINOGRANDE = [
    {"sentence": "Ann saw Eve as _ is tall.", "option1": "Ann", "option2": "Eve", "answer": "2"},
    {"sentence": "The cup hit the jar and _ broke.", "option1": "cup", "option2": "the jar", "answer": "1"},
    {"sentence": "Tom met Bob, so _ was glad.", "option1": "Tom", "option2": "Bob", "answer": "1"},
]
CHOICES = [
    {"context": "Who? ", "choices": ["né", "a cat", "no"], "label": 1},
    {"context": "What is it?", "choices": ["tin", "an old tin", "x"], "label": 0},
    {"context": "Why", "choices": ["as", "so", "yes, so"], "label": 2},
]


@pytest.fixture(params=[None, 4], ids=["vanilla", "block"])
def adapter(make: Make, tokenizer: Tokenizer, request: pytest.FixtureRequest) -> Adapter:
    lm = Adapter(Scorer(make(request.param)), tokenizer, end_of_text=0)
    lm.max_length = 400
    return lm


def bits_a_byte(adapter: Adapter, context: str, continuation: str) -> float:
    """From one forward pass over one text, token by token."""
    stride = adapter.scorer.model.stride
    first = adapter.tok_encode(context) or [adapter.end_of_text]
    pads = -len(first) % stride
    tokens = torch.tensor([[0] * pads + first + adapter.tok_encode(continuation)])
    valid = torch.arange(tokens.shape[1])[None] >= pads
    with torch.inference_mode():
        log_probabilities = adapter.scorer.model(tokens, valid).log_softmax(-1)
    nats = 0.0
    for position in range(pads + len(first), tokens.shape[1]):
        nats -= float(log_probabilities[0, position - stride, tokens[0, position]])
    return nats / math.log(2) / len(continuation.encode())


def asked(
    monkeypatch: pytest.MonkeyPatch, adapter: Adapter, rows: list[dict[str, Any]], **form: Any
) -> dict[str, TaskScore]:
    """Scores of a task of these rows, by metric."""
    form = {"doc_to_text": "context", "doc_to_choice": "choices", "doc_to_target": "label"} | form
    form |= {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
    form.setdefault("output_type", "multiple_choice")
    monkeypatch.setitem(local_tasks.TASKS, "made", local_tasks.LocalTask(lambda _: rows, form))
    return {score.metric: score for score in run_tasks(adapter, ["made"], [])}


def check(score: TaskScore, values: list[float]) -> None:
    assert score.value == pytest.approx(statistics.fmean(values), abs=1e-4)
    assert score.stderr == pytest.approx(statistics.stdev(values) / len(values) ** 0.5, abs=1e-4)
    assert score.documents == len(values)


def of_choices(adapter: Adapter, right: list[set[int]]) -> tuple[list[float], list[float]]:
    """Bits per byte and margins by document, for :data:`CHOICES`; the blank that ends a context is scored too."""
    bits, margins = [], []
    for row, labels in zip(CHOICES, right, strict=True):
        context = str(row["context"])
        blank = " " * context.endswith(" ")
        each = [bits_a_byte(adapter, context.rstrip(), f"{blank} {choice}") for choice in row["choices"]]
        bits.append(min(each[label] for label in labels))
        margins.append(min(value for label, value in enumerate(each) if label not in labels) - bits[-1])
    return bits, margins


def test_a_choice_s_bits_and_margin_are_the_model_s(monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> None:
    scores = asked(monkeypatch, adapter, CHOICES)
    bits, margins = of_choices(adapter, [{1}, {0}, {2}])
    check(scores["gold_bits_per_byte"], bits)
    check(scores["gold_margin"], margins)
    assert scores["acc"].chance == pytest.approx(1 / 3)
    assert scores["gold_margin"].chance is None


def test_labels_may_be_texts_or_lists(monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> None:
    named = [row | {"label": row["choices"][row["label"]]} for row in CHOICES]
    bits, margins = of_choices(adapter, [{1}, {0}, {2}])
    scores = asked(monkeypatch, adapter, named)
    check(scores["gold_bits_per_byte"], bits)
    several = [row | {"label": labels} for row, labels in zip(CHOICES, ([1], [0, 1], [1, 2]), strict=True)]
    bits, margins = of_choices(adapter, [{1}, {0, 1}, {1, 2}])
    scores = asked(monkeypatch, adapter, several)
    check(scores["gold_bits_per_byte"], bits)
    check(scores["gold_margin"], margins)


def test_a_document_without_a_right_choice_is_left_out(monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> None:
    scores = asked(monkeypatch, adapter, [*CHOICES, CHOICES[0] | {"label": -1}, CHOICES[0] | {"label": 7}])
    bits, _ = of_choices(adapter, [{1}, {0}, {2}])
    check(scores["gold_bits_per_byte"], bits)
    assert scores["acc"].documents == 5


def test_a_cloze_has_bits_and_no_margin(monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> None:
    rows = [{"context": "one two", "target": " three"}, {"context": "Ça", "target": " là"}]
    scores = asked(monkeypatch, adapter, rows, output_type="loglikelihood", doc_to_target="target", doc_to_choice=None)
    check(scores["gold_bits_per_byte"], [bits_a_byte(adapter, str(row["context"]), row["target"]) for row in rows])
    assert "gold_margin" not in scores


def test_choices_may_stand_in_the_context(adapter: Adapter, tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in WINOGRANDE)
    (tmp_path / "winogrande.validation.jsonl").write_text(text)
    scores = {score.metric: score for score in run_tasks(adapter, ["winogrande"], [], task_data=tmp_path)}
    bits, margins = [], []
    for row in WINOGRANDE:
        before, after = row["sentence"].split("_")
        each = [bits_a_byte(adapter, before + row[key], " " + after.strip()) for key in ("option1", "option2")]
        bits.append(each[int(row["answer"]) - 1])
        margins.append(sum(each) - 2 * bits[-1])
    check(scores["gold_bits_per_byte"], bits)
    check(scores["gold_margin"], margins)


def test_a_task_whose_own_code_knows_the_labels_has_no_bits(monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> None:
    """As truthfulqa_mc2, whose target is 0 for every document."""

    def process(document: dict[str, Any], results: Any) -> dict[str, float]:
        return {"acc": 1.0}

    scores = asked(monkeypatch, adapter, CHOICES, doc_to_target=0, process_results=process)
    assert set(scores) == {"acc"}


def test_a_group_s_documents_count_once_each(make: Make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """BLiMP, three documents of its first task and one of each other: the mean is over documents, not tasks."""
    members = leaves(manager_for(["blimp"]), ["blimp"])
    sizes = {member: 3 if member == members[0] else 1 for member in members}
    for number, (member, size) in enumerate(sizes.items()):
        pair = {"sentence_good": f"Ann ran {number} {'mile' * size}.", "sentence_bad": "Ann run it."}
        (tmp_path / f"{member}.train.jsonl").write_text((json.dumps(pair) + "\n") * size)
    scores = run_tasks(Adapter(Scorer(make(4)), tokenizer, end_of_text=0), ["blimp"], [], task_data=tmp_path)
    bits = {score.task: score for score in scores if score.metric == "gold_bits_per_byte"}
    assert bits["blimp"].documents == len(members) + 2
    total = sum(bits[member].value * size for member, size in sizes.items())
    assert bits["blimp"].value == pytest.approx(total / bits["blimp"].documents)
    assert bits["blimp"].few_shot == 0
