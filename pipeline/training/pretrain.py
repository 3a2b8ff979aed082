"""Pretraining one cell, from its tokens to its checkpoint folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

import torch

from pipeline.base import paths
from pipeline.base.ranks import is_main_process
from pipeline.device import device_name
from pipeline.models import build, checkpoint, costs
from pipeline.results.environment import describe, provenance
from pipeline.results.records import PretrainResult
from pipeline.study import Cell, Study
from pipeline.training.curve import Row
from pipeline.training.job import Job, Outcome
from pipeline.training.meter import peak_memory


def pretrain(study: Study, cell: Cell, on_row: Callable[[Row], None] | None = None) -> PretrainResult | None:
    """Train ``cell``, or finish what an interrupted run of it left; ``None`` in processes other than rank 0.

    Reads data/tokens; writes checkpoints/<cell>/, and the states where cooldowns begin to trunks/, which the next run
    of the model begins with. ``on_row`` is called with every row of the curve. A cell whose loss
    explodes keeps its last good weights and is marked ``diverged``. Raises :class:`UserError` for a study that does
    not fit tokens or machine, and :class:`Stopped` after Ctrl-C or SIGTERM, once the state is saved.
    """
    job = Job.of(study, cell, on_row)
    if is_main_process():
        job.take_place()
    stored = job.stored_result()
    if stored is not None:
        print(f"{cell.name} is trained already; its weights are kept", file=sys.stderr)
        return stored
    from pipeline.training.lightning.resume import begin_in_trunk
    from pipeline.training.lightning.trainer import fit

    if is_main_process():
        job.open_folder()
        begin_in_trunk(job)
    outcome = fit(job)
    return _finish(job, outcome) if outcome.main else None


def _finish(job: Job, outcome: Outcome) -> PretrainResult:
    if outcome.diverged:
        print(f"{job.cell.name} diverged after step {outcome.steps}; its last good weights are kept", file=sys.stderr)
    model = build(job.config, device="meta")
    checkpoint.assign(model, outcome.weights, job.resume_path)
    shutil.copyfile(paths.TOKENS / "tokenizer.json", job.folder / "tokenizer.json")
    checkpoint.save(job.folder, model, job.record)
    result = _result(job, outcome)
    job.close_folder(result)
    return result


def _result(job: Job, outcome: Outcome) -> PretrainResult:
    tokens = outcome.steps * job.pretrain.batch_size * job.pretrain.context_length
    return PretrainResult(
        cell=job.identity,
        environment=describe(device_name(outcome.device), torch.get_num_threads(), outcome.precision),
        parameters=costs.parameters(job.config),
        non_embedding_parameters=costs.non_embedding_parameters(job.config),
        total_parameters=costs.total_parameters(job.config),
        steps=outcome.steps,
        tokens=tokens,
        target_tokens=outcome.target_tokens,
        training_flops=costs.training_flops_per_token(job.config) * tokens,
        train_loss=outcome.train_loss,
        validation_loss=outcome.validation_loss,
        seconds=outcome.seconds,
        tokens_per_second=tokens / max(outcome.seconds, 1e-9),
        peak_memory=peak_memory(),
        diverged=outcome.diverged,
        compiler_failed=outcome.compiler_failed,
        provenance=provenance(job.folder),
    )
