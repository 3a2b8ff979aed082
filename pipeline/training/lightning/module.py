"""The Lightning module: one batch is one optimizer step, whatever it is cut into."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributed import all_reduce
from torch.distributed.tensor import DTensor

from pipeline.study.schema import Pretrain
from pipeline.training.objective import Objective
from pipeline.training.optimizer import adamw
from pipeline.training.schedule import Schedule
from pipeline.training.sharding import shard

TrainingBatch = tuple[Tensor, Tensor | None]


class Meter:
    """Sums since the last reading, kept on the device: only :meth:`read` waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.targets = torch.zeros((), dtype=torch.float64, device=device)
        self.norm = torch.zeros((), device=device)

    def read(self) -> tuple[float, int, float]:
        """Summed loss, targets, and the last step's gradient norm; the sums begin anew."""
        loss, targets, norm = torch.stack([self.loss, self.targets, self.norm.double()]).tolist()
        self.loss.zero_()
        self.targets.zero_()
        return loss, int(targets), norm


class PretrainingModule(LightningModule):
    """AdamW on the mean loss of a batch's targets over all processes and micro-batches.

    Micro-batches and processes change nothing but rounding: each micro-batch's summed loss is divided by the number of
    targets of the whole batch, however they are spread.
    """

    def __init__(self, objective: Objective, pretrain: Pretrain, schedule: Schedule, micro_batch: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.objective = objective
        self.pretrain = pretrain
        self.schedule = schedule
        self.micro_batch = micro_batch

    def configure_model(self) -> None:
        """Shard parameters, gradients and optimizer state over all processes, where the strategy is fsdp."""
        if self.device_mesh is not None:
            shard(self.objective, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self.objective, self.pretrain)

    def on_fit_start(self) -> None:
        self.meter = Meter(self.device)

    def on_train_end(self) -> None:
        state: dict[str, Tensor] = self.trainer.strategy.lightning_module_state_dict()
        self.final_state = {name: weight.detach().cpu() for name, weight in state.items()}

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        targets = self._targets(batch)
        loss = self._backward(batch, targets)
        norm = torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.pretrain.gradient_clip)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        self._step()
        self.meter.loss += loss
        self.meter.targets += targets
        self.meter.norm = norm

    def _targets(self, batch: TrainingBatch) -> Tensor:
        """Targets of the batch in all processes."""
        tokens, valid = batch
        first = self.objective.model.first
        if valid is None:
            targets = torch.tensor(tokens[:, first:].numel(), device=self.device)
        else:
            targets = valid[:, first:].sum()
        if self.trainer.world_size > 1:
            all_reduce(targets)
        return targets

    def _backward(self, batch: TrainingBatch, targets: Tensor) -> Tensor:
        """Gradients of all micro-batches; returns the summed loss of all processes."""
        tokens, valid = batch
        # Strategies average gradients over processes, so the sum over processes needs this factor.
        scale = self.trainer.world_size / targets
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        starts = range(0, len(tokens), self.micro_batch)
        for start in starts:
            rows = slice(start, start + self.micro_batch)
            loss = self.objective(tokens[rows], None if valid is None else valid[rows]).sum()
            if start == starts[-1]:
                self.manual_backward(loss * scale)
            else:
                with self._without_sync():
                    self.manual_backward(loss * scale)
            total += loss.detach()
        if self.trainer.world_size > 1:
            all_reduce(total)
        return total

    def _without_sync(self) -> Any:
        from contextlib import nullcontext

        strategy: Any = self.trainer.strategy
        return strategy.block_backward_sync() if hasattr(strategy, "block_backward_sync") else nullcontext()

    def _step(self) -> None:
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.trainer.global_step + 1)
        optimizer.step()
        optimizer.zero_grad()
