"""The data module: batch k is a pure function of (corpus, seed, k), so a resumed run just goes on at its step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.base import paths
from pipeline.data import Batches, PackedStream, TokenCorpus
from pipeline.device import accelerator
from pipeline.training.hardware import workers
from pipeline.training.job import Job
from pipeline.training.lightning.module import TrainingBatch


class Shard(Dataset[TrainingBatch]):
    """This process's rows of batch k, under index k."""

    def __init__(self, batches: Batches, rank: int, world_size: int, padding: bool) -> None:
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self.padding = padding

    def __getitem__(self, k: int) -> TrainingBatch:
        batch = self.batches.batch(k, self.rank, self.world_size)
        return torch.from_numpy(batch.tokens), torch.from_numpy(batch.valid) if self.padding else None


class FromStep(Sampler[int]):
    """Batch numbers from the trainer's step on; the length is the whole run's, as Lightning counts."""

    def __init__(self, trainer: Any, steps: int) -> None:
        self.trainer = trainer
        self.steps = steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.trainer.global_step, self.steps))

    def __len__(self) -> int:
        return self.steps


class PretrainingData(LightningDataModule):
    """Training batches sharded by process, and the validation windows."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def train_dataloader(self) -> DataLoader[TrainingBatch]:
        job, trainer = self.job, self.trainer
        assert trainer is not None
        pretrain, device = job.pretrain, accelerator(job.study.hardware)
        block_length = job.config.stride if job.padding else None
        stream = self._stream("train", block_length)
        batches = Batches(stream, pretrain.batch_size, job.cell.seed)
        return DataLoader(
            Shard(batches, trainer.global_rank, trainer.world_size, job.padding),
            batch_size=None,
            sampler=FromStep(trainer, job.schedule.steps),
            num_workers=workers(job.study.hardware, device),
            collate_fn=_identity,
            worker_init_fn=_leave_process_group,
            pin_memory=device == "cuda",
        )

    def validation_windows(self) -> Tensor:
        """This process's windows [W, T] of the validation documents, filled up with -1 to equally many everywhere."""
        pretrain, trainer = self.job.pretrain, self.trainer
        assert trainer is not None
        stream = self._stream("validation", None)
        wanted = min(max(pretrain.validation_tokens // pretrain.context_length, 1), len(stream))
        windows = torch.full((-(-wanted // trainer.world_size), pretrain.context_length), -1)
        for row, index in enumerate(range(trainer.global_rank, wanted, trainer.world_size)):
            windows[row] = torch.from_numpy(stream.window(index)[0])
        return windows

    def _stream(self, split: str, block_length: int | None) -> PackedStream:
        job = self.job
        context_length = job.pretrain.context_length
        corpus = TokenCorpus.open(paths.TOKENS, split)
        return PackedStream(corpus, context_length, block_length, job.manifest.end_of_text, job.cell.seed)


def _identity(batch: Any) -> Any:
    return batch


def _leave_process_group(worker: int) -> None:
    """Ctrl-C and SIGTERM go to the whole process group; the main process alone decides when to stop."""
    os.setpgrp()
