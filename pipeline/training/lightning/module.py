"""The Lightning module: one batch is one optimizer step, whatever it is cut into."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributed import all_reduce

from pipeline.study.schema import Hardware, Pretrain
from pipeline.training.hardware import compiles, largest_micro_batch
from pipeline.training.meter import Meter
from pipeline.training.objective import Objective
from pipeline.training.optimizers import build_optimizer
from pipeline.training.schedule import Schedule
from pipeline.training.wrapping import (
    Compiler,
    clip_gradients,
    compile_layers,
    compile_whole,
    in_pieces,
    recompute_activations,
    shard,
    sum_over_processes,
)

TrainingBatch = tuple[Tensor, Tensor | None]


class PretrainingModule(LightningModule):
    """The optimizer's steps on the mean loss of a batch's targets over all processes and micro-batches.

    Micro-batches and processes change nothing but rounding: each micro-batch's summed loss is divided by the number of
    targets of the whole batch, however they are spread.
    """

    def __init__(
        self, objective: Objective, pretrain: Pretrain, hardware: Hardware, schedule: Schedule, compiler: Compiler
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.objective = objective
        self.pretrain = pretrain
        self.hardware = hardware
        self.schedule = schedule
        self.compiler = compiler
        self.micro_batch = hardware.micro_batch_size
        self._configured = False

    def configure_model(self) -> None:
        """Apply the study's ``hardware`` keys to the layers; a device mesh is there where the strategy is fsdp."""
        if self._configured:
            return
        self._configured = True
        mesh = self.device_mesh
        if self.hardware.activation_checkpointing:
            recompute_activations(self.objective)
        if compiles(self.hardware):
            compile_parts = compile_whole if mesh is None or not in_pieces(self.objective) else compile_layers
            compile_parts(self.objective, self.compiler)
        if mesh is not None:
            shard(self.objective, mesh["data_parallel"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = build_optimizer(self.objective, self.pretrain)
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def on_fit_start(self) -> None:
        self.meter = Meter(self.objective.model.stride, self.device)

    def on_train_end(self) -> None:
        state: dict[str, Tensor] = self.trainer.strategy.lightning_module_state_dict()
        self.final_state = {name: weight.detach().cpu() for name, weight in state.items()}

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        self._backward(batch, self.rows_at_once(batch))
        self.meter.gradient_norm = clip_gradients(self.objective.parameters(), self.pretrain.gradient_clip)
        self._step()

    def _targets(self, batch: TrainingBatch) -> Tensor:
        """Targets of the batch in all processes."""
        tokens, valid = batch
        stride = self.objective.model.stride
        if valid is None:
            targets = torch.full((), tokens[:, stride:].numel(), device=self.device)
        else:
            targets = valid[:, stride:].sum()
        if self.trainer.world_size > 1:
            all_reduce(targets)
        return targets

    def rows_at_once(self, batch: TrainingBatch) -> int:
        """The micro-batch: given, or on a GPU searched for at the first step, or the whole batch."""
        if self.micro_batch is None:
            self.micro_batch = len(batch[0])
            if self.device.type == "cuda" and self.device_mesh is None:
                fits = largest_micro_batch(self.objective, self.pretrain.optimizer, *batch)
                self.micro_batch = int(
                    self.trainer.strategy.reduce(torch.tensor(fits, device=self.device), reduce_op="min")
                )
        return self.micro_batch

    def _backward(self, batch: TrainingBatch, micro_batch: int) -> None:
        """Gradients of all micro-batches."""
        tokens, valid = batch
        # fsdp averages gradients over processes, so that their sum needs this factor.
        scale = (1 if self.device_mesh is None else self.trainer.world_size) / self._targets(batch)
        for start in range(0, len(tokens), micro_batch):
            rows = slice(start, start + micro_batch)
            own = None if valid is None else valid[rows]
            losses = self.objective(tokens[rows], own)
            self.manual_backward(losses.sum() * scale)
            self.meter.add(losses, None if own is None else own[:, self.objective.model.stride :])
        if self.trainer.world_size > 1 and self.device_mesh is None:
            sum_over_processes([weight.grad for weight in self.objective.parameters() if weight.grad is not None])

    def _step(self) -> None:
        optimizer: Any = self.optimizers()
        for group, peak in zip(optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = self.schedule.rate(peak, self.trainer.global_step + 1)
        optimizer.step()
        optimizer.zero_grad()
