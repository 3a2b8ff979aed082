"""Lightning's Trainer, set up by the study's ``hardware`` keys and without its chatter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.distributed import broadcast

from pipeline.base.out_of_memory import is_out_of_memory
from pipeline.device import accelerator, precision
from pipeline.training.hardware import devices, out_of_memory, processes
from pipeline.training.job import Job, Outcome
from pipeline.training.lightning.data import PretrainingData
from pipeline.training.lightning.module import PretrainingModule
from pipeline.training.lightning.recorder import Recorder
from pipeline.training.lightning.resume import Resume, ResumeIO, model_weights, read_state, state_to_begin_with
from pipeline.training.objective import Objective
from pipeline.training.start import initial_model
from pipeline.training.stopping import Stopped, StopRequest
from pipeline.training.wrapping import Compiler


class WholeModels(DDPStrategy):
    """Every process has the whole model, and begins with the weights of rank 0."""

    def configure_ddp(self) -> None:
        assert self.model is not None
        for weight in self.model.state_dict().values():
            broadcast(weight, src=0)


def fit(job: Job) -> Outcome:
    """Train, or go on where an earlier run stopped. Raises :class:`Stopped` when a signal asked to stop."""
    study, device = job.study, accelerator(job.study.hardware)
    model = initial_model(job)
    arithmetic = precision(job.pretrain.precision, device)
    compiler = Compiler(job.cell.name)
    module = PretrainingModule(Objective(model, arithmetic), job.pretrain, study.hardware, job.schedule, compiler)
    stop, recorder = StopRequest(), Recorder(job)
    resume = Resume(job, recorder, stop)
    state = state_to_begin_with(job)
    with _quiet(), stop.restored():
        trainer = _trainer(job, device, [recorder, resume])
        _fit(trainer, module, job, state)
    if resume.stopped_at is not None:
        raise Stopped(
            f"{job.cell.name} stopped at step {resume.stopped_at} of {job.schedule.steps}; run it again to go on"
        )
    weights = _last_good(job) if recorder.diverged else module.final_state
    return Outcome(
        weights=model_weights(weights),
        steps=recorder.step,
        target_tokens=recorder.target_tokens,
        train_loss=recorder.train_loss,
        validation_loss=recorder.validation_loss,
        seconds=recorder.seconds,
        device=device,
        precision=arithmetic,
        diverged=recorder.diverged,
        compiler_failed=compiler.failed,
        main=trainer.is_global_zero,
    )


def _fit(trainer: Trainer, module: PretrainingModule, job: Job, state: Path | None) -> None:
    try:
        trainer.fit(module, datamodule=PretrainingData(job), ckpt_path=state, weights_only=True)
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(module.micro_batch or job.pretrain.batch_size) from None


def _trainer(job: Job, device: str, callbacks: list[Any]) -> Trainer:
    hardware = job.study.hardware
    count = processes(hardware, device, job.pretrain.batch_size)
    return Trainer(
        accelerator=device,
        devices=devices(hardware, device),
        num_nodes=hardware.num_nodes,
        strategy=_strategy(hardware.strategy, count),
        max_steps=job.schedule.steps,
        callbacks=callbacks,
        plugins=[ResumeIO(job)],
        limit_val_batches=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _strategy(wanted: str, count: int) -> Any:
    """One process needs none; several share gradients (ddp), or parameters and optimizer state as well (fsdp).

    For ddp torch's wrapper is left out: it cuts a compiled model into a graph a bucket, and its hooks wait for another
    stream at every gradient. The module sums the gradients itself, once per step.
    """
    if count == 1:
        return "auto"
    if wanted == "fsdp":
        from lightning.pytorch.strategies import ModelParallelStrategy

        return ModelParallelStrategy(count, 1, save_distributed_checkpoint=False)
    return WholeModels()


def _last_good(job: Job) -> dict[str, Tensor]:
    """The weights of the last checkpoint before training diverged, or those it began with."""
    state = read_state(job.resume_path, job)
    if state is not None:
        weights: dict[str, Tensor] = state["state_dict"]
        return weights
    model = initial_model(job)
    return dict(model.state_dict())


@contextmanager
def _quiet() -> Iterator[None]:
    """Only errors from Lightning: what it would say about devices, workers and resuming is decided here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
