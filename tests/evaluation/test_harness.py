"""lm-eval's own tasks through the adapter: on line names, off line files, errors."""

from __future__ import annotations

import io
import json
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from pipeline.base.errors import UserError
from pipeline.evaluation.adapter import Adapter
from pipeline.evaluation.harness import load_tasks, manager_for, run_tasks
from pipeline.evaluation.scoring import Scorer
from pipeline.evaluation.task_names import check_tasks
from pipeline.models import LanguageModel
from tests.evaluation.test_local_tasks import TEXTS

Make = Callable[..., LanguageModel]

ROWS: dict[str, list[dict[str, Any]]] = {
    "piqa.validation": [
        {"goal": f"Keep {thing}", "sol1": "in a box", "sol2": "in the sun all day", "label": number % 2}
        for number, thing in enumerate(("tea", "ice", "salt", "wool"))
    ],
    "lambada_openai.test": [{"text": "one two three four"}, {"text": "up and down and up"}],
    "blimp_causative.train": [{"sentence_good": "Ann breaks it.", "sentence_bad": "Ann vanished it."}] * 3,
    "hellaswag.validation": [
        {
            "ctx_a": "A man sits.",
            "ctx_b": "he",
            "ctx": "A man sits. he",
            "activity_label": "Roof",
            "endings": ["stands.", "is red.", "[title] flies.", "eats it."],
            "label": "3",
        }
    ],
    "sciq.validation": [
        {
            "question": "Who?",
            "distractor1": "a",
            "distractor2": "b",
            "distractor3": "c",
            "correct_answer": "d",
            "support": "",
        }
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def adapter(make: Make, tokenizer: Tokenizer) -> Adapter:
    model = make(4)
    lm = Adapter(Scorer(model), tokenizer, end_of_text=0)
    lm.max_length = 400
    return lm


def test_scores_are_what_the_log_likelihoods_say(adapter: Adapter, folder: Path) -> None:
    right = right_norm = 0
    for row in ROWS["piqa.validation"]:
        context = f"Question: {row['goal']}\nAnswer:"
        pairs = [(context, f" {row[key]}") for key in ("sol1", "sol2")]
        requests = [(pair, adapter.tok_encode(pair[0]), adapter.tok_encode(pair[1])) for pair in pairs]
        values = [value for value, _ in adapter._loglikelihood_tokens(requests)]
        right += int(np.argmax(values)) == row["label"]
        right_norm += (
            int(np.argmax([v / len(row[k]) for v, k in zip(values, ("sol1", "sol2"), strict=True)])) == row["label"]
        )
    scores = {score.metric: score for score in run_tasks(adapter, ["piqa"], [], task_data=folder)}
    assert scores["acc"].value == pytest.approx(right / 4)
    assert scores["acc_norm"].value == pytest.approx(right_norm / 4)
    assert (scores["acc"].documents, scores["acc"].chance, scores["acc"].split) == (4, 0.5, "validation")


def test_tasks_of_every_kind_run_from_files(adapter: Adapter, folder: Path) -> None:
    names = ["lambada_openai", "blimp_causative", "hellaswag", "sciq", "cloze", "continuation"]
    scores = run_tasks(adapter, names, TEXTS, limit=3, task_data=folder)
    by_metric = {(score.task, score.metric): score for score in scores}
    assert {task for task, _ in by_metric} == set(names)
    assert by_metric["lambada_openai", "perplexity"].value > 1
    assert by_metric["blimp_causative", "acc"].split == "train"
    assert by_metric["hellaswag", "acc"].chance == 0.25
    assert by_metric["sciq", "acc"].split == "validation"
    assert by_metric["cloze", "acc"].documents == 3
    assert by_metric["hellaswag", "acc"].stderr is None


def test_no_bar_without_a_name_is_shown_on_a_terminal(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    run_tasks(adapter, ["cloze", "continuation"], TEXTS, limit=2)
    (line,) = terminal.getvalue().splitlines()
    assert line.startswith("warning: the context length is 400 tokens")


def test_global_generators_and_loggers_are_left_alone(adapter: Adapter) -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    level = logging.getLogger("lm_eval").level
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    run_tasks(adapter, ["cloze"], TEXTS, limit=2)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert logging.getLogger("lm_eval").level == level


def test_a_missing_file_names_the_task_and_the_command(folder: Path) -> None:
    with pytest.raises(UserError, match=r"winogrande.validation.jsonl: no such file; task winogrande .* prefetch"):
        load_tasks(["winogrande"], task_data=folder)
    with pytest.raises(UserError, match=r"piqa.train.jsonl: no such file"):
        load_tasks(["piqa"], task_data=folder, few_shot=2)
    with pytest.raises(UserError, match="'nowhere' is no folder"):
        load_tasks(["piqa"], task_data=Path("nowhere"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"goal": "x", "sol1": "y", "label": 0}\n',
            "piqa.validation.jsonl: no column sol2; the columns are goal, sol1, label",
        ),
        (b'{"goal": "x", "sol1": "y", "sol2": "z"}\n', "piqa.validation.jsonl: no column label"),
        (b'{"goal": "x", "label": 0}\n{"goal": "x"}\n', "jsonl:2: columns goal, but the first line has goal, label"),
        (b'{"goal": \n', "piqa.validation.jsonl:1: not a line of JSON"),
        (b'{"goal": "\xff"}\n', "piqa.validation.jsonl:1: not a line of JSON"),
        (b'["goal"]\n', "piqa.validation.jsonl:1: a document is an object, not list"),
        (b"", "piqa.validation.jsonl: no documents"),
    ],
)
def test_damaged_files_are_an_error_that_names_them(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "piqa.validation.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_tasks(["piqa"], task_data=tmp_path)


def test_few_shot_examples_come_from_the_training_split(adapter: Adapter, folder: Path) -> None:
    (folder / "piqa.train.jsonl").write_text(json.dumps({"goal": "Shot", "sol1": "p", "sol2": "q", "label": 1}) + "\n")
    tasks = load_tasks(["piqa"], task_data=folder, few_shot=1)["tasks"]
    assert [row["goal"] for row in tasks["piqa"].fewshot_docs()] == ["Shot"]
    scores = run_tasks(adapter, ["piqa"], [], task_data=folder, few_shot=1)
    assert [score.few_shot for score in scores] == [1, 1, 1, 1]


def test_an_unknown_task_is_met_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'arc_eazy' is no task of lm-eval or of this project; did you mean 'arc_easy'"):
        manager_for(["arc_eazy"])


def test_tasks_groups_and_tags_are_known_without_an_index() -> None:
    check_tasks(["cloze", "hellaswag", "blimp", "mmlu_anatomy", "pile_10k", "gpqa", "acp_bench"])


def test_tasks_beyond_the_context_are_one_line(
    adapter: Adapter, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_tasks(adapter, ["piqa"], [], task_data=folder)
    assert capsys.readouterr().err == ""
    adapter.max_length = 20
    run_tasks(adapter, ["piqa", "sciq"], [], task_data=folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the context length is 20 tokens; prompts were cut on the left ")
    assert line.endswith("exceed it: 8 of 8 of piqa, 4 of 4 of sciq")
