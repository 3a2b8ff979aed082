"""A cell's evaluation, from its checkpoint to its record."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.out_of_memory import out_of_memory_says
from pipeline.base.progress import Progress
from pipeline.checkpoints import Opened, open_cell, require_study_tokenizer
from pipeline.data import Manifest, TokenCorpus, read_documents
from pipeline.device import accelerator, device_name
from pipeline.evaluation.foresight import refuse_foresight
from pipeline.evaluation.harness import run_tasks
from pipeline.evaluation.perplexity import (
    bootstrap_stderr,
    document_losses,
    losses_by_position,
    mean_by_block_position,
    unigram_loss,
)
from pipeline.evaluation.scoring import Scorer
from pipeline.evaluation.waypoints import kept_weights, load_weights
from pipeline.results.environment import describe, provenance
from pipeline.results.records import (
    CopyScore,
    EvaluateResult,
    NeedleScore,
    PositionLosses,
    RecallScore,
    Sample,
    TaskScore,
    Waypoint,
    identity_of,
)

if TYPE_CHECKING:
    from pipeline.study import Cell, Study

SPLIT = "test"
COUNT_CHUNK = 1 << 24
SAMPLE_PROMPT, SAMPLE_TOKENS = 64, 64


@dataclass(frozen=True)
class HeldOut:
    """The held-out documents that are scored, as tokens and as text."""

    corpus: TokenCorpus
    count: int

    @classmethod
    def open(cls, max_documents: int | None) -> HeldOut:
        """The test split, or its first ``max_documents``. Raises :class:`UserError` where there is none."""
        corpus = TokenCorpus.open(paths.TOKENS, SPLIT)
        return cls(corpus, len(corpus) if max_documents is None else min(max_documents, len(corpus)))

    def tokens(self) -> Iterator[npt.NDArray[np.int64]]:
        """Each document's tokens [T], without end of text."""
        return (self.corpus.document(index) for index in range(self.count))

    def texts(self) -> Iterator[str]:
        """Each document's text."""
        return islice(read_documents(paths.CORPUS, SPLIT), self.count)

    @cached_property
    def unigram_loss(self) -> float:
        """That of the training split's token frequencies."""
        return unigram_loss(_token_counts(), self.tokens())

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """UTF-8 bytes and words of the documents' text."""
        documents = size = words = 0
        for text in self.texts():
            documents += 1
            size += len(text.encode())
            words += len(re.split(r"\s+", text))
        if documents != self.count:
            raise UserError(f"{paths.CORPUS} holds fewer documents than {paths.TOKENS}; run `dvc repro tokenize`")
        return size, words


def evaluate(study: Study, cell: Cell) -> EvaluateResult:
    """Loss, zero-shot tasks and samples of a trained cell. Raises :class:`UserError`, naming the cell."""
    try:
        with out_of_memory_says(
            "in evaluation; try evaluate.precision: bf16, shorter evaluate.long_context, smaller evaluate.samples, "
            "or hardware.accelerator: cpu"
        ):
            return _evaluate(study, cell)
    except UserError as error:
        raise UserError(f"cell {cell.name}: {error}") from None


def _evaluate(study: Study, cell: Cell) -> EvaluateResult:
    settings = study.evaluate
    opened = open_cell(cell.name, accelerator(study.hardware), settings.precision, study.tokenize.end_of_text)
    require_study_tokenizer(opened)
    held_out = HeldOut.open(settings.max_documents)
    final = _scored(study, opened, held_out)
    samples = _samples(study, opened, held_out, opened.model.config.context_length)
    return dataclasses.replace(final, samples=samples, along=_along(study, cell, opened, held_out))


def _along(study: Study, cell: Cell, opened: Opened, held_out: HeldOut) -> list[Waypoint]:
    """The scores of the weights that training kept on its way, which take the place of the final ones in ``opened``."""
    found = []
    for tokens, path in kept_weights(study, cell, opened.folder).items():
        load_weights(opened, path)
        scores = _scored(study, opened, held_out)
        slim = dataclasses.replace(scores, nats_by_document=[], targets_by_document=[], provenance=None)
        found.append(Waypoint(tokens, slim))
    return found


def _scored(study: Study, opened: Opened, held_out: HeldOut) -> EvaluateResult:
    """All that the study asks of one model's weights, but for samples."""
    started = time.perf_counter()
    settings = study.evaluate
    # The stream of now: lm-eval's own bars, which say less, are kept from it.
    progress = partial(Progress, opened.folder.name, stream=sys.stderr, unit="request")
    scorer = Scorer(opened.model, padded=opened.padded, progress=progress)
    refuse_foresight(scorer, held_out.tokens())
    context = opened.model.config.context_length
    tasks = _tasks(study, scorer, opened, held_out)
    stride = settings.stride or max(context // 2, 1)
    losses = document_losses(scorer, held_out.tokens(), context, stride)
    if not losses.targets:
        raise UserError(f"the {held_out.count} held-out documents hold no token to predict")
    size, words = held_out.sizes
    return EvaluateResult(
        cell=identity_of(opened.record, opened.folder),
        environment=describe(device_name(opened.device), torch.get_num_threads(), opened.precision),
        loss=losses.loss,
        loss_stderr=bootstrap_stderr(losses),
        perplexity=math.exp(losses.loss),
        bits_per_byte=losses.nats / math.log(2) / size,
        word_perplexity=_exp(losses.nats / words),
        unigram_loss=held_out.unigram_loss,
        documents=held_out.count,
        skipped_documents=int((losses.targets_by_document == 0).sum()),
        target_tokens=losses.targets,
        nats_by_document=losses.nats_by_document.tolist(),
        targets_by_document=losses.targets_by_document.tolist(),
        bytes=size,
        words=words,
        stride=stride,
        loss_by_block_position=mean_by_block_position(losses),
        loss_by_context=_by_context(study, scorer, held_out, context),
        tasks=tasks,
        needle=_needle(study, opened, held_out, context),
        copies=_copies(study, scorer, held_out, context),
        recall=_recall(study, scorer, opened, context),
        samples=[],
        documents_hash=held_out.corpus.hash,
        tokenizer_hash=Manifest.read(paths.TOKENS).tokenizer_hash,
        lm_eval=version("lm_eval"),
        seconds=time.perf_counter() - started,
        provenance=provenance(opened.folder),
    )


def _exp(value: float) -> float:
    """e to the value. Raises :class:`UserError` past what a float holds, which only weights that diverged reach."""
    try:
        return math.exp(value)
    except OverflowError:
        raise UserError(
            f"a loss of {value:.3g} nats per word has no finite perplexity: the weights have diverged"
        ) from None


def _token_counts() -> npt.NDArray[np.int64]:
    """How often the training split holds each token, [V], read in pieces."""
    corpus = TokenCorpus.open(paths.TOKENS, "train")
    counts = np.zeros(corpus.vocabulary, np.int64)
    for file in corpus.files:
        for start in range(0, len(file.tokens), COUNT_CHUNK):
            counts += np.bincount(file.tokens[start : start + COUNT_CHUNK], minlength=len(counts))
    return counts


def _by_context(study: Study, scorer: Scorer, held_out: HeldOut, context: int) -> list[PositionLosses]:
    limit = study.evaluate.long_context_tokens
    curves = (
        losses_by_position(scorer, held_out.tokens(), context * multiple, limit)
        for multiple in study.evaluate.long_context
    )
    return [curve for curve in curves if curve is not None]


def _tasks(study: Study, scorer: Scorer, opened: Opened, held_out: HeldOut) -> list[TaskScore]:
    settings = study.evaluate
    if not settings.tasks:
        return []
    from pipeline.evaluation.adapter import Adapter

    adapter = Adapter(scorer, opened.tokenizer, opened.end_of_text)
    folder = None if settings.task_data is None else Path(settings.task_data)
    return run_tasks(
        adapter,
        settings.tasks,
        list(held_out.texts()),
        limit=settings.limit,
        few_shot=settings.few_shot,
        task_data=folder,
    )


def _needle(study: Study, opened: Opened, held_out: HeldOut, context: int) -> list[NeedleScore]:
    if not study.evaluate.needle:
        return []
    from pipeline.evaluation.needle import needle_scores

    return needle_scores(opened, held_out.tokens(), context, study.evaluate.needle)


def _copies(study: Study, scorer: Scorer, held_out: HeldOut, context: int) -> list[CopyScore]:
    if not study.evaluate.copy:
        return []
    from pipeline.evaluation.copying import copy_scores

    drawn = np.delete(np.arange(held_out.corpus.vocabulary), held_out.corpus.end_of_text)
    return copy_scores(scorer, held_out.tokens(), drawn, context, study.evaluate.copy)


def _recall(study: Study, scorer: Scorer, opened: Opened, context: int) -> list[RecallScore]:
    if not study.evaluate.recall:
        return []
    from pipeline.evaluation.recall import recall_scores

    lists, symbols = study.evaluate.recall, study.evaluate.recall_symbols
    return recall_scores(scorer, opened.tokenizer, context, lists, symbols)


def _samples(study: Study, opened: Opened, held_out: HeldOut, context: int) -> list[Sample]:
    from pipeline.evaluation.samples import continuations

    prompt = min(SAMPLE_PROMPT, context // 2)
    new = min(SAMPLE_TOKENS, context - prompt)
    return continuations(opened, held_out.tokens(), study.evaluate.samples, prompt, new)
