"""transformers' ``generate`` on the same weights, for vanilla models (extra ``baselines``)."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from pipeline.base.errors import UserError
from pipeline.benchmark.timing import Repeats, random_prompts, synchronize
from pipeline.interop.huggingface import huggingface_values, to_huggingface
from pipeline.models import LanguageModel
from pipeline.models.config import ModelConfig
from pipeline.results.records import Baseline
from pipeline.study.schema import Setting

CACHES = {"cpu": ["dynamic"], "cuda": ["dynamic", "static"]}
"""transformers' caches to time; its static cache comes with compilation, which takes minutes on a CPU."""

WARM_UP_TOKENS = 4
PATIENCE = 20.0
"""Seconds after which a run is not repeated: a run takes up to fifteen times ours."""


def expressible(config: ModelConfig) -> bool:
    """Whether transformers has the model: it knows no block transformers, and no window of a vanilla one."""
    try:
        return bool(huggingface_values(config))
    except UserError:
        return False


def transformers_baselines(model: LanguageModel, setting: Setting, batch: int, repeats: Repeats) -> list[Baseline]:
    """Time transformers at ``batch``, or the largest of its halves that fits.

    Raises :class:`UserError` where transformers is missing, or the model is not :func:`expressible`.
    """
    if find_spec("transformers") is None:
        raise UserError("benchmark.baselines: transformers is not installed; pip install 'blockscale[baselines]'")
    device = next(model.parameters()).device
    theirs = _converted(model, setting)
    return [_fitting(theirs, model, setting, batch, repeats, cache) for cache in CACHES[device.type]]


def _converted(model: LanguageModel, setting: Setting) -> Any:
    from transformers import AutoModelForCausalLM

    weight = model.head_weight
    with tempfile.TemporaryDirectory() as folder:
        to_huggingface(model, folder)
        theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=weight.dtype)
    theirs.config.max_position_embeddings = setting.prompt + setting.new_tokens
    theirs.generation_config.eos_token_id = None
    return theirs.to(weight.device).eval()


def _fitting(theirs: Any, model: LanguageModel, setting: Setting, batch: int, repeats: Repeats, cache: str) -> Baseline:
    while True:
        try:
            return _measure(theirs, model, setting, batch, repeats, cache)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            torch.cuda.empty_cache()


def _measure(theirs: Any, model: LanguageModel, setting: Setting, batch: int, repeats: Repeats, cache: str) -> Baseline:
    prompts = random_prompts(model, batch, setting.prompt)
    _seconds(theirs, prompts, setting, cache, stop=WARM_UP_TOKENS)
    seconds = [_seconds(theirs, prompts, setting, cache)]
    while len(seconds) < repeats.count and sum(seconds) < PATIENCE:
        seconds.append(_seconds(theirs, prompts, setting, cache))
    median = statistics.median(seconds)
    return Baseline(
        name=f"transformers, {cache} cache",
        batch=batch,
        tokens_per_second=batch * setting.new_tokens / median,
        spread=(max(seconds) - min(seconds)) / median,
        repeats=len(seconds),
    )


def _seconds(theirs: Any, prompts: torch.Tensor, setting: Setting, cache: str, stop: int | None = None) -> float:
    """Seconds of a run; one that ends after ``stop`` tokens compiles what a whole run needs."""
    started = time.perf_counter()
    with torch.inference_mode():
        theirs.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=setting.new_tokens,
            do_sample=False,
            cache_implementation=cache,
            pad_token_id=0,
            stopping_criteria=None if stop is None else [_after(setting.prompt + stop)],
        )
    synchronize(prompts.device)
    return time.perf_counter() - started


def _after(length: int) -> Callable[..., torch.Tensor]:
    """A stopping criterion as transformers has it: all rows end at ``length`` tokens."""
    return lambda tokens, scores, **_: torch.full(tokens.shape[:1], tokens.shape[1] >= length, device=tokens.device)
