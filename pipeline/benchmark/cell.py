"""A cell's benchmark, from its checkpoint (or random weights) to its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.out_of_memory import out_of_memory_says
from pipeline.benchmark.batches import doubling, largest_batch
from pipeline.benchmark.roofline import device_rates, roofline
from pipeline.benchmark.timing import Repeats, measure, probe
from pipeline.checkpoints import open_cell
from pipeline.data import model_vocabulary
from pipeline.device import accelerator, device_name, dtype
from pipeline.device import precision as resolved
from pipeline.generation import Session
from pipeline.models import LanguageModel, build, costs
from pipeline.results.environment import describe, provenance
from pipeline.results.records import (
    Baseline,
    BatchMeasurement,
    BenchmarkResult,
    CellIdentity,
    DeviceRates,
    Environment,
    Roofline,
    SettingResult,
    identity_of,
)
from pipeline.study import model_config

if TYPE_CHECKING:
    from pipeline.study import Cell, Study
    from pipeline.study.schema import Setting

Report = Callable[[str], None]


def benchmark(study: Study, cell: Cell, *, random_weights: bool = False, report: Report = print) -> BenchmarkResult:
    """Measure every setting of ``study.benchmark``; speed does not depend on the weights, so they may be random."""
    started = time.perf_counter()
    device, precision = placement(study)
    model, identity = _model(study, cell, device, precision, random_weights)
    rates = device_rates(device, precision)
    runner = Runner(study, model, rates, report)
    settings = {name: runner.setting(name, setting) for name, setting in study.benchmark.settings.items()}
    return BenchmarkResult(
        cell=identity,
        environment=environment_of(study),
        settings=settings,
        repeats=study.benchmark.repeats,
        seconds=time.perf_counter() - started,
        rates=rates,
        memory="measured" if device == "cuda" else "counted",
        notes=["random weights"] if random_weights else [],
        provenance=None if random_weights else provenance(paths.checkpoint(cell.name)),
    )


def rates_of(study: Study) -> DeviceRates:
    """The device's rates, measured as a benchmark of the study does."""
    return device_rates(*placement(study))


def environment_of(study: Study) -> Environment:
    """What a benchmark of the study runs on, in which precision."""
    device, precision = placement(study)
    return describe(device_name(device), torch.get_num_threads(), precision)


def limit(study: Study, cell: Cell, setting: Setting, rates: DeviceRates) -> Roofline:
    """What ``rates`` allow a cell, trained or not, at the largest of the study's batch sizes."""
    config = model_config(study, cell, model_vocabulary(study.tokenize))
    element = dtype(placement(study)[1]).itemsize
    return roofline(config, setting, max(study.benchmark.batch_sizes), element, rates)


def placement(study: Study) -> tuple[str, str]:
    """Device and precision of the study's benchmarks."""
    device = accelerator(study.hardware)
    return device, resolved(study.benchmark.precision, device)


class Runner:
    """Measures a model in the study's settings."""

    def __init__(self, study: Study, model: LanguageModel, rates: DeviceRates, report: Report) -> None:
        self.wanted = study.benchmark
        self.model, self.rates, self.report = model, rates, report
        self.repeats = Repeats(self.wanted.warmup, self.wanted.repeats)

    def setting(self, name: str, setting: Setting) -> SettingResult:
        """Every batch size of one setting measured; the fastest one's figures lead."""
        measurements = [self._measure(name, setting, batch) for batch in self._batches(setting)]
        best = max(measurements, key=lambda measurement: measurement.tokens_per_second)
        single = measurements[0]
        element = self.model.head_weight.element_size()
        limit = roofline(self.model.config, setting, best.batch, element, self.rates)
        return SettingResult(
            prompt=setting.prompt,
            new_tokens=setting.new_tokens,
            batch=best.batch,
            tokens_per_second=best.tokens_per_second,
            decode_tokens_per_second=best.decode_tokens_per_second,
            spread=best.spread,
            time_to_first_token=single.prefill_seconds,
            latency_per_token=1 / single.decode_tokens_per_second if single.decode_tokens_per_second else 0.0,
            bytes_per_sample=self._slope(setting, measurements),
            kv_bytes_per_sample=costs.kv_bytes(self.model.config, setting.prompt + setting.new_tokens, element),
            measurements=measurements,
            roofline=limit,
            roofline_fraction=best.tokens_per_second / limit.tokens_per_second,
            baselines=self._baselines(setting, best.batch),
        )

    def _baselines(self, setting: Setting, batch: int) -> list[Baseline]:
        if not self.wanted.baselines:
            return []
        from pipeline.benchmark.baselines import expressible, transformers_baselines

        if not expressible(self.model.config):
            return []
        return transformers_baselines(self.model, setting, batch, self.repeats)

    def _batches(self, setting: Setting) -> list[int]:
        """Batch 1, for latency, and those of the study or of the search."""
        if self.wanted.batch_sizes:
            return sorted({1, *self.wanted.batch_sizes})
        if next(self.model.parameters()).is_cuda:
            return sorted({1, largest_batch(self.model, setting, self.wanted.memory_fraction)})
        return doubling(
            lambda batch: measure(self.model, setting, batch, Repeats(0, 1)).tokens_per_second,
            lambda batch: Session(self.model, 1, setting.prompt, setting.new_tokens).bytes * batch,
        )

    def _measure(self, name: str, setting: Setting, batch: int) -> BatchMeasurement:
        with out_of_memory_says(
            f"at batch {batch} in setting {name}; take a smaller benchmark.batch_sizes, "
            "or leave it empty to search for the largest that fits"
        ):
            measurement = measure(self.model, setting, batch, self.repeats)
        self.report(
            f"{name} ({setting.prompt} + {setting.new_tokens} tokens), batch {batch}: "
            f"{measurement.tokens_per_second:,.0f} tokens/s, spread {measurement.spread:.1%}"
        )
        return measurement

    def _slope(self, setting: Setting, measurements: list[BatchMeasurement]) -> float:
        small, large = measurements[0], measurements[-1]
        if small.batch == large.batch:
            return float(probe(self.model, setting, small.batch + 1) - small.peak_memory)
        return (large.peak_memory - small.peak_memory) / (large.batch - small.batch)


def _model(
    study: Study, cell: Cell, device: str, precision: str, random_weights: bool
) -> tuple[LanguageModel, CellIdentity]:
    if random_weights:
        return random_model(study, cell).to(device, dtype(precision)), cell.identity("random weights")
    opened = open_cell(cell.name, device, precision)
    return opened.model, identity_of(opened.record, opened.folder)


def random_model(study: Study, cell: Cell) -> LanguageModel:
    """The cell's model with random weights, on the CPU. Raises :class:`UserError` if the study does not train it."""
    if cell.family == "pretrained":
        raise UserError(f"cell {cell.name}: a model trained elsewhere is benchmarked from its checkpoint")
    return build(model_config(study, cell, model_vocabulary(study.tokenize))).eval()
