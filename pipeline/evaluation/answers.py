"""What a model gives the right answers of a task, from the log-likelihoods that lm-eval's run has computed already.

A task has answers where each of its documents asks for log-likelihoods: of several choices, or of one text (a cloze).
Where the choices stand in the context, as WinoGrande's do, every request has the same continuation and is an answer all
the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Answer:
    """Of one document: bits per UTF-8 byte of its right answer, and how many fewer these are than the best wrong one's.

    ``margin`` is ``None`` where no answer is wrong.
    """

    bits_per_byte: float
    margin: float | None


def answers(task: Any) -> list[Answer]:
    """The answer of every document of an lm-eval task that has run; none where the task does not say which is right.

    Of several right answers the one with the fewest bits per byte counts. A document whose label is no choice has none.
    """
    if not _says_which_is_right(task):
        return []
    return [found for found in (_answer(task, requests) for requests in _by_document(task)) if found is not None]


def mean_and_error(values: Iterable[float]) -> tuple[float, float | None]:
    """The mean and its standard error, ``None`` for one value."""
    of = np.fromiter(values, dtype=np.float64)
    return float(of.mean()), float(of.std(ddof=1) / math.sqrt(len(of))) if len(of) > 1 else None


def _says_which_is_right(task: Any) -> bool:
    """Code of a task's own that scores its answers, beside a target that never changes, has its labels elsewhere."""
    from lm_eval.api.task import ConfigurableTask

    if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE not in ("multiple_choice", "loglikelihood"):
        return False
    return not (callable(task.config.process_results) and isinstance(task.config.doc_to_target, int))


def _by_document(task: Any) -> Iterator[list[Any]]:
    """The requests for each document's answers, in the choices' order."""
    documents: dict[int, list[Any]] = {}
    for request in task.instances:
        documents.setdefault(request.doc_id, []).append(request)
    # For mutual information the choices are asked for twice, the second time without their context.
    times = 2 if "acc_mutual_info" in task._metric_fn_list else 1
    for requests in documents.values():
        requests.sort(key=lambda request: request.idx)
        yield requests[: len(requests) // times]


def _answer(task: Any, requests: list[Any]) -> Answer | None:
    bits = [_bits_per_byte(request) for request in requests]
    right = _right(task, requests[0].doc, len(bits))
    if not right:
        return None
    best = min(bits[index] for index in right)
    wrong = [each for index, each in enumerate(bits) if index not in right]
    return Answer(best, min(wrong) - best if wrong else None)


def _bits_per_byte(request: Any) -> float:
    """lm-eval moves white space that ends the context to the continuation, and scores it there."""
    context, continuation = request.args[:2]
    scored = context[len(context.rstrip()) :] + continuation
    return float(-request.resps[0][0] / math.log(2) / len(scored.encode()))


def _right(task: Any, document: Any, choices: int) -> set[int]:
    """Which choices are right, as lm-eval reads the task's target: an index, several, or a choice's own text."""
    if task.OUTPUT_TYPE == "loglikelihood":
        return {0}
    target = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    if isinstance(target, str):
        texts = task.doc_to_choice(document)
        target = texts.index(target) if target in texts else -1
    targets = target if isinstance(target, list) else [target]
    return {index for index in targets if isinstance(index, int) and 0 <= index < choices}
