"""`python -m pipeline evaluate prefetch`: the documents of lm-eval's tasks, for machines without a network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.evaluation.local_tasks import TASKS
from pipeline.evaluation.task_data import evaluated_splits, few_shot_split, path_of, write_rows
from pipeline.study.arguments import study_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="lm-eval's tasks or groups; default evaluate.tasks")
    parser.add_argument("--folder", type=Path, help="where to write TASK.SPLIT.jsonl; default evaluate.task_data")


def run(arguments: argparse.Namespace) -> None:
    """Write what the study, or the command line, names. Raises :class:`UserError`."""
    settings = study_of(arguments).evaluate
    folder = arguments.folder or (settings.task_data and Path(settings.task_data))
    if not folder:
        raise UserError("evaluate.task_data: set it to a folder, or give --folder")
    for path, documents in prefetch(arguments.tasks or settings.tasks, Path(folder), settings.few_shot):
        print(f"{path}: {documents} documents")


def prefetch(names: Sequence[str], folder: Path, few_shot: int = 0) -> list[tuple[Path, int]]:
    """Write the documents of tasks and groups; each file with its number of documents. Local tasks need none."""
    from pipeline.evaluation.harness import load_tasks

    tasks = load_tasks([name for name in names if name not in TASKS])["tasks"]
    return [written for task in tasks.values() for written in write_task(task, folder, few_shot)]


def write_task(task: Any, folder: Path, few_shot: int = 0) -> list[tuple[Path, int]]:
    """Write the split that a loaded task is scored on and, if any, the one its few-shot examples are from."""
    config = task.config.to_dict()
    splits = set(evaluated_splits(config)[:1])
    if few_shot and config.get("num_fewshot") != 0:
        splits |= {few_shot_split(config)}
    name = task.config.task
    return [
        (path_of(folder, name, split), write_rows(folder, name, split, task.dataset[split])) for split in sorted(splits)
    ]
