"""Generation timed at one batch size."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.generation import Session
from pipeline.models import LanguageModel
from pipeline.results.records import BatchMeasurement
from pipeline.study.schema import Setting


@dataclass(frozen=True)
class Repeats:
    """Full runs that do not count, and those whose median does."""

    warmup: int
    count: int


def measure(model: LanguageModel, setting: Setting, batch: int, repeats: Repeats) -> BatchMeasurement:
    """Time ``batch`` random prompts, greedily, with no end of text. Kernels are compiled before the first run.

    Raises ``torch.OutOfMemoryError`` where they do not fit.
    """
    device = next(model.parameters()).device
    _reset_peak(device)
    session = Session(model, batch, setting.prompt, setting.new_tokens)
    prompts = random_prompts(model, batch, setting.prompt)
    session.warm_up(prompts)
    for _ in range(repeats.warmup):
        session.run(prompts)
    runs = [_timed(session, prompts) for _ in range(repeats.count)]
    return _measurement(session, setting, runs, peak_memory(model, session))


def probe(model: LanguageModel, setting: Setting, batch: int) -> int:
    """Peak memory in bytes of a run at that batch size, from its prefill and first steps."""
    device = next(model.parameters()).device
    _reset_peak(device)
    session = Session(model, batch, setting.prompt, setting.new_tokens)
    session.warm_up(random_prompts(model, batch, setting.prompt))
    return peak_memory(model, session)


def random_prompts(model: LanguageModel, batch: int, length: int) -> Tensor:
    """Tokens [batch, length] on the model's device, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.vocabulary, (batch, length), generator=generator)
    return tokens.to(next(model.parameters()).device)


def peak_memory(model: LanguageModel, session: Session) -> int:
    """Bytes: on CUDA the allocator's peak; elsewhere weights, caches, output and logits, counted."""
    if session.device.type == "cuda":
        return torch.cuda.max_memory_allocated(session.device)
    return session.bytes + sum(weight.nbytes for weight in model.parameters())


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(session: Session, prompts: Tensor) -> tuple[float, float]:
    """Seconds of the prefill (which chooses the first tokens) and of the rest."""
    return seconds(session.device, lambda: session.prefill(prompts)), seconds(session.device, session.decode)


def seconds(device: torch.device, call: Callable[[], None]) -> float:
    """Wall time of a call, with what it gives a GPU to do."""
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


def _measurement(session: Session, setting: Setting, runs: list[tuple[float, float]], peak: int) -> BatchMeasurement:
    totals = [prefill + decode for prefill, decode in runs]
    whole = statistics.median(totals)
    decode = statistics.median(decode for _, decode in runs)
    later = session.batch * max(setting.new_tokens - session.engine.stride, 0)
    return BatchMeasurement(
        batch=session.batch,
        seconds=whole,
        spread=(max(totals) - min(totals)) / whole,
        tokens_per_second=session.batch * setting.new_tokens / whole,
        prefill_seconds=statistics.median(prefill for prefill, _ in runs),
        decode_tokens_per_second=later / decode if later else 0.0,
        peak_memory=peak,
    )


def _reset_peak(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
