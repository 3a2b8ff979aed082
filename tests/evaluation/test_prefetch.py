"""Documents written on one machine are those that a task reads on another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.task import ConfigurableTask

from pipeline.base.errors import UserError
from pipeline.commands.prefetch import prefetch, write_task
from pipeline.evaluation.harness import load_tasks
from pipeline.evaluation.task_data import read_rows, write_rows
from tests.evaluation.test_harness import ROWS

TRAIN = [{"goal": "Shot", "sol1": "p", "sol2": "q\n\u00e9", "label": 1}]


@pytest.fixture
def piqa(tmp_path: Path) -> Any:
    """lm-eval's piqa, its documents through the loader that reads the hub's, from files."""
    files = {"train": TRAIN, "validation": ROWS["piqa.validation"]}
    for split, rows in files.items():
        (tmp_path / f"{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = {split: str(tmp_path / f"{split}.json") for split in files}
    return ConfigurableTask(
        config={
            "task": "piqa",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": paths, "cache_dir": str(tmp_path / "cache")},
            "training_split": "train",
            "validation_split": "validation",
            "output_type": "multiple_choice",
            "doc_to_text": "Question: {{goal}}\nAnswer:",
            "doc_to_target": "label",
            "doc_to_choice": "{{[sol1, sol2]}}",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    )


def test_files_hold_the_documents_of_the_splits_that_are_used(tmp_path: Path, piqa: Any) -> None:
    folder = tmp_path / "tasks"
    assert write_task(piqa, folder) == [(folder / "piqa.validation.jsonl", 4)]
    assert read_rows(folder, "piqa", "validation") == ROWS["piqa.validation"]
    assert [path.name for path, _ in write_task(piqa, folder, few_shot=1)] == [
        "piqa.train.jsonl",
        "piqa.validation.jsonl",
    ]
    assert read_rows(folder, "piqa", "train") == TRAIN


def test_a_task_reads_from_the_files_what_it_read_from_the_hub(tmp_path: Path, piqa: Any) -> None:
    write_task(piqa, tmp_path / "tasks", few_shot=1)
    read = load_tasks(["piqa"], task_data=tmp_path / "tasks", few_shot=1)["tasks"]["piqa"]
    assert list(read.eval_docs) == list(piqa.eval_docs)
    assert [read.doc_to_text(doc) for doc in read.fewshot_docs()] == [
        piqa.doc_to_text(doc) for doc in piqa.training_docs()
    ]


def test_local_tasks_need_no_files(tmp_path: Path) -> None:
    assert prefetch(["cloze", "continuation"], tmp_path) == []


def test_documents_that_are_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task pictures: its documents are not text alone"):
        write_rows(tmp_path, "pictures", "test", [{"image": b"\x89PNG"}])
    assert list(tmp_path.iterdir()) == []
