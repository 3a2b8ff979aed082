"""lm-eval's tasks by name: found without indexing all of them, fed from local files, run, and read back as scores."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.base.errors import UserError
from pipeline.evaluation import local_tasks
from pipeline.evaluation.answers import Answer, answers, mean_and_error
from pipeline.evaluation.task_data import PREFETCH, members, read_from
from pipeline.evaluation.task_names import check_tasks, likely_folders
from pipeline.results.records import GOLD_BITS, GOLD_MARGIN, TaskScore

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from pipeline.evaluation.adapter import Adapter

BOOTSTRAP = 1000
FEW_SHOT_SEED = 1234


def run_tasks(
    adapter: Adapter,
    names: Sequence[str],
    texts: Sequence[str],
    *,
    limit: int | None = None,
    few_shot: int = 0,
    task_data: Path | None = None,
) -> list[TaskScore]:
    """Scores of tasks and groups by name: local ones over the held-out ``texts``, all others lm-eval's own.

    lm-eval's ``evaluate`` is called instead of its ``simple_evaluate``, which reseeds every global generator. Where
    requests exceed the context length, one line on stderr says how many of which task.
    Raises :class:`UserError` for an unknown task, documents that cannot be had, and scores that are not finite.
    """
    from lm_eval.evaluator import evaluate

    adapter.requests.clear()
    adapter.beyond.clear()
    with _undisturbed():
        loaded = load_tasks(names, texts, task_data=task_data, few_shot=few_shot)
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") != 0:
                task.set_config("num_fewshot", few_shot)
            task.set_fewshot_seed(FEW_SHOT_SEED)
        with contextlib.redirect_stderr(io.StringIO()):  # bars that do not say of what
            results = evaluate(adapter, loaded, limit=limit, bootstrap_iters=BOOTSTRAP, log_samples=False)
        answered = {task: answers(task) for task in loaded["tasks"].values()}
    cut = adapter.cut()
    if cut is not None:
        print(f"warning: {cut}", file=sys.stderr)
    members = {name: [task] for name, task in loaded["tasks"].items()}
    members |= {name: group.get_all_tasks() for name, group in loaded["groups"].items()}
    return [score for name in results["results"] for score in _scores(results, name, members[name], answered)]


def load_tasks(
    names: Sequence[str], texts: Sequence[str] = (), *, task_data: Path | None = None, few_shot: int = 0
) -> Any:
    """lm-eval's mapping of tasks and groups, documents loaded."""
    foreign = [name for name in names if name not in local_tasks.TASKS]
    manager = manager_for(foreign)
    if task_data is not None:
        read_from(manager, foreign, task_data, few_shot)
    loaded: dict[str, dict[str, Any]] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in names:
        for kind, of_name in _load(manager, name, texts, task_data).items():
            loaded[kind] |= of_name
    return loaded


def _load(manager: TaskManager, name: str, texts: Sequence[str], task_data: Path | None) -> Any:
    if name in local_tasks.TASKS:
        return manager.load([local_tasks.task_config(name, texts)])
    try:
        return manager.load([name])
    except UserError:
        raise
    except Exception as error:  # lm-eval, datasets, jinja2 and a task's own code raise whatever they like
        fix = f"set evaluate.task_data to a folder that `{PREFETCH}` filled where there is a network"
        if task_data is not None:
            fix = f"fill {task_data} again with `{PREFETCH}`"
        raise UserError(f"task {name}: its documents cannot be read ({_one_line(error)}); {fix}") from None


def manager_for(names: Sequence[str]) -> TaskManager:
    """A task manager that knows ``names``. Raises :class:`UserError` that suggests the nearest for an unknown one.

    Indexing the folders where the tasks should be takes no time; the full index is built where that fails.
    """
    from lm_eval.tasks import TaskManager

    check_tasks(names)
    manager = TaskManager(include_defaults=False, include_path=likely_folders(names))
    return manager if all(_complete(manager, name) for name in names) else TaskManager()


def _complete(manager: TaskManager, name: str) -> bool:
    """Whether the index holds the task, and for a group all of its members."""
    entry = manager.task_index.get(name)
    if entry is None:
        return False
    return entry.kind.name != "GROUP" or all(_complete(manager, member) for member in members(entry))


def _scores(results: Any, name: str, tasks: list[Any], answered: dict[Any, list[Answer]]) -> list[TaskScore]:
    """Every metric of a task or group; ``tasks`` are those behind it, ``answered`` has their documents' answers."""
    metrics = results["results"][name]
    make = functools.partial(
        TaskScore,
        task=name,
        version=str(results["versions"].get(name, "")),
        few_shot=int(results["n-shot"].get(name, 0)),
        split="/".join(sorted({_split(task) for task in tasks})),
    )
    scores = []
    for key, value in metrics.items():
        metric, _, filtered = key.partition(",")
        if not filtered or metric.endswith("_stderr"):
            continue
        scores.append(
            make(
                metric=metric if filtered == "none" else f"{metric}_{filtered}",
                value=_finite(name, metric, value),
                stderr=_number(metrics.get(f"{metric}_stderr,{filtered}")),
                documents=int(metrics["sample_len"]),
                chance=_chance(tasks) if metric in ("acc", "acc_norm") else None,
            )
        )
    found = [answer for task in tasks for answer in answered[task]] if scores else []
    return scores + [make(**gold) for gold in _gold(found)]


def _gold(found: list[Answer]) -> Iterator[dict[str, Any]]:
    """The fields of a :class:`TaskScore` for each metric of right answers that there is one of."""
    margins = [answer.margin for answer in found if answer.margin is not None]
    for metric, values in ((GOLD_BITS, [answer.bits_per_byte for answer in found]), (GOLD_MARGIN, margins)):
        if values:
            mean, error = mean_and_error(values)
            yield {"metric": metric, "value": mean, "stderr": error, "documents": len(values)}


def _split(task: Any) -> str:
    return str(task.config.test_split or task.config.validation_split)


def _finite(task: str, metric: str, value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"task {task}: {metric} is {value}, not a finite number")
    return float(value)


def _number(value: Any) -> float | None:
    """A standard error; lm-eval writes "N/A" where there is none."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _chance(tasks: list[Any]) -> float | None:
    """Accuracy of guessing: the mean, over documents, of one over the number of choices."""
    if any(task.OUTPUT_TYPE != "multiple_choice" for task in tasks):
        return None
    choices = Counter((task.task_name, instance.doc_id) for task in tasks for instance in task.instances)
    return sum(1 / count for count in choices.values()) / len(choices)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave global generators as they were, and let lm-eval print only the bars of downloads, and those to a terminal.

    Its bootstrap stays in this process: forking one that holds torch's threads can hang.
    """
    logger = logging.getLogger("lm_eval")
    level, single = logger.level, os.environ.get("DISABLE_MULTIPROC")
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    logger.setLevel(logging.ERROR)
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(_templates_kept())
            if not sys.stderr.isatty():
                stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            yield
    finally:
        logger.setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if single is None:
            del os.environ["DISABLE_MULTIPROC"]


@contextlib.contextmanager
def _templates_kept() -> Iterator[None]:
    """lm-eval compiles a task's jinja2 templates anew for every document, 4 ms each: minutes for all of BLiMP."""
    from lm_eval.utils import env

    env.from_string = functools.cache(env.from_string)
    try:
        yield
    finally:
        del env.from_string


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}").strip()[:200]
