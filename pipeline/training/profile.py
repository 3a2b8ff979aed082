"""Where a training step's time goes, and how fast it is: `python -m pipeline.training.profile CELL`."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pipeline.base import paths
from pipeline.base.command import command
from pipeline.base.device_rates import product_rate
from pipeline.data import Batches, PackedStream, TokenCorpus, model_vocabulary
from pipeline.device import accelerator, device_name, precision
from pipeline.models import LanguageModel, build, initialise
from pipeline.models.costs import causal_training_flops_per_token, training_flops_per_token
from pipeline.results.environment import describe
from pipeline.study import Cell, Study, find_cell, model_config, pretraining
from pipeline.study.arguments import add_study_arguments, study_of
from pipeline.training.hardware import compiles, largest_micro_batch
from pipeline.training.job import Job
from pipeline.training.meter import peak_memory
from pipeline.training.objective import Objective
from pipeline.training.optimizers import build_optimizer
from pipeline.training.start import initial_model
from pipeline.training.wrapping import Compiler, compile_whole, recompute_activations

Value = TypeVar("Value")
TrainingBatch = tuple[Tensor, Tensor | None]
PHASES = ("data", "forward and loss", "backward", "clip and optimizer")


@command
def main() -> None:
    """Profile some steps of the cell that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.profile", description=__doc__)
    parser.add_argument("cell", help="a cell's name, as `python -m pipeline plan` lists them")
    add_study_arguments(parser)
    parser.add_argument(
        "--random-tokens", action="store_true", help="needs no corpus; speed does not depend on the text"
    )
    parser.add_argument("--steps", type=int, default=5, help="steps timed, after as many to warm up")
    parser.add_argument("--rows", type=int, default=20, help="operations listed")
    parser.add_argument("--json", action="store_true", help="print JSON, without the operations")
    arguments = parser.parse_args()
    study = study_of(arguments)
    cell = find_cell(study, arguments.cell)
    model, batch = (_random if arguments.random_tokens else _real)(study, cell)
    steps = _Steps(study, cell, model, batch)
    measured = steps.measure(arguments.steps)
    print(json.dumps(asdict(measured)) if arguments.json else measured)
    if not arguments.json:
        print(_operations(steps, arguments.rows))


@dataclass(frozen=True)
class Measurement:
    """Training speed of one process. ``milliseconds`` are a step's by phase, each phase waited for.

    ``tokens_per_second``, ``spread`` (of the middle step's time) and both utilizations are of whole steps.
    ``utilization``: model FLOPs with attention over whole squares, as PaLM counts, or a window's chunks, against
    ``matmul_rate`` (FLOP/s); ``causal_utilization`` counts only the keys that a query attends to.
    """

    cell: str
    device: str
    torch: str
    precision: str
    compiled: bool
    batch_size: int
    micro_batch: int
    context_length: int
    tokens_per_second: float
    spread: float
    utilization: float
    causal_utilization: float
    matmul_rate: float
    peak_memory: int
    first_step_seconds: float
    milliseconds: dict[str, float]

    def __str__(self) -> str:
        phases = [f"  {name:<20}{milliseconds:10.2f} ms" for name, milliseconds in self.milliseconds.items()]
        facts = (
            f"{self.tokens_per_second:,.0f} tokens/s; {self.utilization:.0%} of a large matrix product's rate "
            f"({self.causal_utilization:.0%} if attention counts causal pairs only); "
            f"{self.peak_memory / 2**20:,.0f} MiB; micro-batches of {self.micro_batch} sequences; "
            f"first step {self.first_step_seconds:.1f} s"
        )
        total = sum(self.milliseconds.values())
        return "\n".join([f"{self.cell}: {total:.2f} ms per step, phase by phase", *phases, facts])


def _real(study: Study, cell: Cell) -> tuple[LanguageModel, Callable[[int], TrainingBatch]]:
    """The cell's model at its start and its batches."""
    job = Job.of(study, cell)
    corpus = TokenCorpus.open(paths.TOKENS, "train")
    block_length = job.config.stride if job.padding else None
    stream = PackedStream(corpus, job.pretrain.context_length, block_length, job.manifest.end_of_text, cell.seed)
    batches = Batches(stream, job.pretrain.batch_size, cell.seed)

    def batch(k: int) -> TrainingBatch:
        drawn = batches.batch(k)
        return torch.from_numpy(drawn.tokens), torch.from_numpy(drawn.valid) if job.padding else None

    return initial_model(job), batch


def _random(study: Study, cell: Cell) -> tuple[LanguageModel, Callable[[int], TrainingBatch]]:
    """The cell's model and random tokens; with padding, every row begins with pads."""
    pretrain, vocabulary = pretraining(study, cell), model_vocabulary(study.tokenize)
    config = model_config(study, cell, vocabulary)
    model = build(config)
    initialise(model, cell.seed)
    padding = cell.variant is not None and study.variants[cell.variant].padding

    def batch(k: int) -> TrainingBatch:
        generator = torch.Generator().manual_seed(k)
        tokens = torch.randint(vocabulary, (pretrain.batch_size, pretrain.context_length), generator=generator)
        valid = torch.arange(pretrain.context_length).expand_as(tokens) >= config.stride - 1
        return tokens, valid if padding else None

    return model, batch


class _Steps:
    """Training steps of one process."""

    def __init__(self, study: Study, cell: Cell, model: LanguageModel, batch: Callable[[int], TrainingBatch]) -> None:
        hardware = study.hardware
        self.cell, self.batch, self.pretrain = cell, batch, pretraining(study, cell)
        self.device = torch.device(accelerator(hardware))
        self.compiler = Compiler(cell.name) if compiles(hardware) else None
        self.objective = Objective(model, precision(self.pretrain.precision, self.device.type)).to(self.device)
        if hardware.activation_checkpointing:
            recompute_activations(self.objective)
        if self.compiler is not None:
            compile_whole(self.objective, self.compiler)
        self.optimizer = build_optimizer(self.objective, self.pretrain)
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.step = 0
        tokens, valid = self._batch()
        on_gpu = self.device.type == "cuda"
        self.micro_batch = hardware.micro_batch_size or (
            largest_micro_batch(self.objective, self.pretrain.optimizer, tokens, valid) if on_gpu else len(tokens)
        )

    def measure(self, count: int) -> Measurement:
        first, *_ = [self._whole() for _ in range(max(count, 1))]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        whole = [self._whole() for _ in range(count)]
        memory = peak_memory()
        self.seconds = dict.fromkeys(PHASES, 0.0)
        for _ in range(count):
            self.run()
        return self._measurement(
            first, whole, memory, {name: 1e3 * seconds / count for name, seconds in self.seconds.items()}
        )

    def _measurement(
        self, first: float, whole: list[float], memory: int, milliseconds: dict[str, float]
    ) -> Measurement:
        pretrain, config = self.pretrain, self.objective.model.config
        seconds = statistics.median(whole)
        rate = pretrain.batch_size * pretrain.context_length / seconds
        best = product_rate(self.device, self.objective.precision)
        device = describe(device_name(self.device.type), torch.get_num_threads(), self.objective.precision)
        return Measurement(
            cell=self.cell.name,
            device=device.device,
            torch=device.torch,
            precision=self.objective.precision,
            compiled=self.compiler is not None and not self.compiler.failed,
            batch_size=pretrain.batch_size,
            micro_batch=self.micro_batch,
            context_length=pretrain.context_length,
            tokens_per_second=rate,
            spread=(max(whole) - min(whole)) / seconds,
            utilization=rate * training_flops_per_token(config) / best,
            causal_utilization=rate * causal_training_flops_per_token(config) / best,
            matmul_rate=best,
            peak_memory=memory,
            first_step_seconds=first,
            milliseconds=milliseconds,
        )

    def _whole(self) -> float:
        """Seconds of a step that is waited for at its end alone."""
        begun = time.perf_counter()
        self.run(wait=False)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    def run(self, wait: bool = True) -> None:
        """One step; with ``wait`` every phase is timed on its own."""
        timed = self._timed if wait else _untimed
        tokens, valid = timed("data", self._batch)
        for start in range(0, len(tokens), self.micro_batch):
            rows = slice(start, start + self.micro_batch)
            own = None if valid is None else valid[rows]
            loss = timed("forward and loss", partial(self._loss, tokens[rows], own))
            timed("backward", (loss / tokens.numel()).backward)
        timed("clip and optimizer", self._update)
        self.step += 1

    def _batch(self) -> TrainingBatch:
        tokens, valid = self.batch(self.step)
        return tokens.to(self.device), None if valid is None else valid.to(self.device)

    def _loss(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        losses: Tensor = self.objective(tokens, valid)
        return losses.sum()

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.pretrain.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _timed(self, phase: str, work: Callable[[], Value]) -> Value:
        begun = time.perf_counter()
        value = work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[phase] += time.perf_counter() - begun
        return value


def _untimed(phase: str, work: Callable[[], Value]) -> Value:
    return work()


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
