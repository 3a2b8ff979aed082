"""Where a training step's time goes: `python -m pipeline.training.profile CELL`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pipeline import paths
from pipeline.command import command
from pipeline.data import Batches, PackedStream, TokenCorpus
from pipeline.models.costs import training_flops_per_token
from pipeline.study import find_cell, load_study
from pipeline.training.fitting import largest_micro_batch
from pipeline.training.hardware import accelerator, compiles, precision
from pipeline.training.job import Job
from pipeline.training.memory import peak_memory
from pipeline.training.objective import Objective
from pipeline.training.optimizer import adamw
from pipeline.training.start import initial_model
from pipeline.training.utilization import matmul_rate
from pipeline.training.wrapping import compile_whole, recompute_activations

Value = TypeVar("Value")
PHASES = ("data", "forward and loss", "backward", "clip and optimizer")


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.profile", description=__doc__)
    parser.add_argument("cell", help="a cell's name, as `python -m pipeline plan` lists them")
    parser.add_argument("--steps", type=int, default=5, help="steps timed, after as many to warm up")
    parser.add_argument("--rows", type=int, default=20, help="operations listed")
    arguments = parser.parse_args()
    study = load_study()
    steps = _Steps(Job.of(study, find_cell(study, arguments.cell)))
    for _ in range(arguments.steps):
        steps.run()
    steps.seconds = dict.fromkeys(PHASES, 0.0)
    for _ in range(arguments.steps):
        steps.run()
    print(steps.summary(arguments.steps))
    print(_operations(steps, arguments.rows))


class _Steps:
    """Training steps of one process, each phase timed on its own."""

    def __init__(self, job: Job) -> None:
        hardware = job.study.hardware
        self.job = job
        self.device = torch.device(accelerator(hardware))
        self.objective = Objective(initial_model(job), precision(job.pretrain.precision, self.device.type))
        self.objective.to(self.device)
        if hardware.activation_checkpointing:
            recompute_activations(self.objective)
        if compiles(hardware):
            compile_whole(self.objective)
        self.optimizer = adamw(self.objective, job.pretrain)
        corpus = TokenCorpus.open(paths.TOKENS, "train")
        block_length = job.config.first if job.padding else None
        stream = PackedStream(
            corpus, job.pretrain.context_length, block_length, job.manifest.end_of_text, job.cell.seed
        )
        self.batches = Batches(stream, job.pretrain.batch_size, job.cell.seed)
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.step = 0
        tokens, valid = self._batch()
        on_gpu = self.device.type == "cuda"
        fits = largest_micro_batch(self.objective, tokens, valid) if on_gpu else len(tokens)
        self.micro_batch = hardware.micro_batch_size or fits

    def run(self) -> None:
        tokens, valid = self._timed("data", self._batch)
        for start in range(0, len(tokens), self.micro_batch):
            rows = slice(start, start + self.micro_batch)
            own = None if valid is None else valid[rows]
            loss = self._timed("forward and loss", partial(self._loss, tokens[rows], own))
            self._timed("backward", (loss / tokens.numel()).backward)
        self._timed("clip and optimizer", self._update)
        self.step += 1

    def summary(self, steps: int) -> str:
        """Milliseconds a phase and step, tokens/s, utilization and memory."""
        seconds = sum(self.seconds.values()) / steps
        tokens = self.job.pretrain.batch_size * self.job.pretrain.context_length
        rate = training_flops_per_token(self.job.config) * tokens / seconds
        share = rate / matmul_rate(self.device, self.objective.precision)
        phases = [f"  {name:<20}{1000 * each / steps:10.2f} ms" for name, each in self.seconds.items()]
        facts = (
            f"{tokens / seconds:,.0f} tokens/s; {share:.0%} of a large matrix product's rate; "
            f"{peak_memory() / 2**20:,.0f} MiB; micro-batches of {self.micro_batch} sequences"
        )
        return "\n".join([f"{self.job.cell.name}: {1000 * seconds:.2f} ms a step, phase by phase", *phases, facts])

    def _batch(self) -> tuple[Tensor, Tensor | None]:
        batch = self.batches.batch(self.step)
        valid = torch.from_numpy(batch.valid).to(self.device) if self.job.padding else None
        return torch.from_numpy(batch.tokens).to(self.device), valid

    def _loss(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        losses: Tensor = self.objective(tokens, valid)
        return losses.sum()

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.job.pretrain.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _timed(self, phase: str, work: Callable[[], Value]) -> Value:
        begun = time.perf_counter()
        value = work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[phase] += time.perf_counter() - begun
        return value


def _operations(steps: _Steps, rows: int) -> str:
    activities = [ProfilerActivity.CPU]
    if steps.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        steps.run()
    key = "self_device_time_total" if steps.device.type == "cuda" else "self_cpu_time_total"
    return str(profiled.key_averages().table(sort_by=key, row_limit=rows, max_name_column_width=50))


if __name__ == "__main__":
    main()
