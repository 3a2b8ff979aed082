"""Documents of lm-eval's tasks as files ``TASK.SPLIT.jsonl``: written on a machine with a network, read on any."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.errors import UserError
from pipeline.base.files import replacing

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

PREFETCH = "python -m pipeline evaluate prefetch"


def path_of(folder: Path, task: str, split: str) -> Path:
    """Where a task's documents of one split lie."""
    return folder / f"{task}.{split}.jsonl"


def read_from(manager: TaskManager, names: Iterable[str], folder: Path, few_shot: int = 0) -> None:
    """Make the tasks ``names`` (a group's members too) read their documents from ``folder``; nothing else changes.

    The test split is read, or the validation split where the task has no test split or its file is absent. Examples
    for few-shot prompts come from the split that the task takes them from.
    """
    if not folder.is_dir():
        raise UserError(f"evaluate.task_data: {str(folder)!r} is no folder; fill one with `{PREFETCH}`")
    for name in leaves(manager, names):
        entry = manager.task_index[name]
        entry.cfg = _offline(name, entry, folder, few_shot)
        entry.yaml_path = None


def leaves(manager: TaskManager, names: Iterable[str]) -> list[str]:
    """Tasks behind names of tasks, groups and tags, each once."""
    tasks: dict[str, None] = {}  # a set that keeps order
    for name in names:
        entry = manager.task_index[name]
        if entry.kind.name == "GROUP":
            tasks |= dict.fromkeys(leaves(manager, members(entry)))
        elif entry.kind.name == "TAG":
            tasks |= dict.fromkeys(leaves(manager, sorted(entry.tags)))
        else:
            tasks[name] = None
    return list(tasks)


def members(entry: Any) -> list[str]:
    """Names that a group's entry lists."""
    listed = (entry.cfg or {}).get("task") or []
    return [item if isinstance(item, str) else item.get("task") or item["group"] for item in listed]


def _offline(name: str, entry: Any, folder: Path, few_shot: int) -> dict[str, Any]:
    from lm_eval.tasks._yaml_loader import load_yaml

    config: dict[str, Any] = load_yaml(entry.yaml_path, resolve_func=True)
    if "class" in config:
        return config | {"class": _refusing(name)}
    splits = evaluated_splits(config)
    present = [split for split in splits if path_of(folder, name, split).is_file()]
    used = present[0] if present else splits[0]
    shots = few_shot_split(config) if few_shot and config.get("num_fewshot") != 0 else None

    def documents(**_: Any) -> Any:
        wanted = {used} | ({shots} if shots else set())
        loaded = {split: read_dataset(folder, name, split) for split in wanted}
        for split, dataset in loaded.items():
            _check_columns(path_of(folder, name, split), config, dataset)
        return loaded

    kept = {
        key: value for key, value in config.items() if key not in ("training_split", "validation_split", "test_split")
    }
    return kept | {
        "custom_dataset": documents,
        "test_split": used,
        "training_split": shots,
        "fewshot_split": shots,
        "metadata": dict(config.get("metadata") or {}) | {"split": used},
    }


def _check_columns(path: Path, config: dict[str, Any], dataset: Any) -> None:
    """Raise :class:`UserError` for a column that the task's templates read and the file lacks."""
    process = config.get("process_docs")
    columns = (process(dataset.select([0])) if process else dataset).column_names
    missing = _columns_read(config) - set(columns)
    if missing:
        raise UserError(f"{path}: no column {', '.join(sorted(missing))}; the columns are {', '.join(columns)}")


def _columns_read(config: dict[str, Any]) -> set[str]:
    from jinja2 import Environment, meta

    columns: set[str] = set()
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        template = config.get(key)
        if isinstance(template, str):
            # A bare name is a column; all else is a template.
            columns |= (
                {template} if template.isidentifier() else meta.find_undeclared_variables(Environment().parse(template))
            )
    return columns


def evaluated_splits(config: dict[str, Any]) -> list[str]:
    """Splits that a task can be scored on, lm-eval's choice first."""
    return [config[key] for key in ("test_split", "validation_split") if config.get(key)]


def few_shot_split(config: dict[str, Any]) -> str:
    """The split that lm-eval takes few-shot examples from."""
    keys = ("fewshot_split", "training_split", "validation_split", "test_split")
    return str(next(config[key] for key in keys if config.get(key)))


def read_dataset(folder: Path, task: str, split: str) -> Any:
    """The documents of a file as a dataset. Raises :class:`UserError`, as :func:`read_rows` does."""
    from datasets import Dataset
    from pyarrow import ArrowException

    rows = read_rows(folder, task, split)
    try:
        return Dataset.from_list(rows)
    except (ArrowException, OverflowError, UnicodeEncodeError, TypeError) as error:
        where = path_of(folder, task, split)
        raise UserError(f"{where}: a column holds values of several types ({' '.join(str(error).split())})") from None


def read_rows(folder: Path, task: str, split: str) -> list[dict[str, Any]]:
    """The documents of a file. Raises :class:`UserError` naming file, line and what is wrong."""
    path = path_of(folder, task, split)
    if not path.is_file():
        raise UserError(f"{path}: no such file; task {task} needs it: run `{PREFETCH}` where there is a network")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not a line of JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: a document is an object, not {type(row).__name__}")
        if rows and row.keys() != rows[0].keys():
            raise UserError(f"{path}:{number}: columns {', '.join(row)}, but the first line has {', '.join(rows[0])}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: no documents; run `{PREFETCH}` where there is a network")
    return rows


def write_rows(folder: Path, task: str, split: str, rows: Iterable[Any]) -> int:
    """Write documents as JSON lines; how many. Raises :class:`UserError` where one holds more than text and numbers."""
    count = 0
    with replacing(path_of(folder, task, split)) as temporary, temporary.open("w", encoding="utf-8") as opened:
        for line in _lines(task, rows):
            opened.write(line)
            count += 1
    return count


def _lines(task: str, rows: Iterable[Any]) -> Iterator[str]:
    for row in rows:
        try:
            yield json.dumps(row, ensure_ascii=False) + "\n"
        except TypeError as error:
            raise UserError(
                f"task {task}: its documents are not text alone ({error}), so no file can hold them"
            ) from None


def _refusing(name: str) -> type:
    class Refusing:
        def __init__(self) -> None:
            raise UserError(
                f"task {name} is a Python class that finds its own documents; it cannot run from evaluate.task_data"
            )

    return Refusing
