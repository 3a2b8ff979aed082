"""The model card of an exported cell: README.md with how to use it, its scores, its recipe and what is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.base.dotted import flat
from pipeline.interop.export import Exported
from pipeline.models.config import BlockConfig, ModelConfig
from pipeline.models.costs import non_embedding_parameters, total_parameters
from pipeline.results.metrics import quality_metrics, readable
from pipeline.results.records import BenchmarkResult, EvaluateResult, PretrainResult

FRONT = """\
---
library_name: transformers
pipeline_tag: text-generation
license: unknown
tags:
- blockscale
- {family}
---
"""
USE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(folder{trust})
model = AutoModelForCausalLM.from_pretrained(folder{trust})
prompt = tokenizer("Once upon a time", return_tensors="pt", add_special_tokens=False)
tokens = model.generate(**prompt, max_new_tokens=32, do_sample=False)
print(tokenizer.decode(tokens[0]))
```
"""
CODE_NOTE = """\
The model's code is beside the weights (`modeling_blockscale.py`, `layers_blockscale.py`): read it before you trust it.
It keeps no cache and runs the whole model again for each token. The speeds below are those of the project's own engine.
Prompts are padded on the left, so that each ends where a block of tokens does.
"""


@dataclass(frozen=True)
class Described:
    """A cell to describe: ``record`` is its checkpoint's ``config.json``; results are ``None`` where there are none."""

    study: str
    name: str
    config: ModelConfig
    record: dict[str, Any]
    corpus: str
    pretrain: PretrainResult | None
    evaluate: EvaluateResult | None
    benchmark: BenchmarkResult | None


def model_card(cell: Described, exported: Exported) -> str:
    """The text of README.md."""
    trust = ", trust_remote_code=True" if exported.code else ""
    parts = [
        FRONT.format(family=cell.config.family),
        f"# {cell.name}\n\n{_what(cell)}\n",
        f"## Use\n\n{USE.format(trust=trust)}",
        *([CODE_NOTE] if exported.code else []),
        f"## Quality\n\n{_quality(cell.evaluate, cell.pretrain)}",
        f"## Speed\n\n{_speed(cell.benchmark)}",
        f"## Training\n\n{_training(cell)}",
        f"## Data and licence\n\n{_data(cell)}",
    ]
    return "\n".join(parts)


def _what(cell: Described) -> str:
    config = cell.config
    counts = f"{total_parameters(config):,} parameters, {non_embedding_parameters(config):,} of them outside embeddings"
    kind = "vanilla transformer"
    if isinstance(config, BlockConfig):
        kind = f"[Block Transformer](https://arxiv.org/abs/2406.02657) with blocks of {config.block_length} tokens"
    return (
        f"A {kind}: {counts}; context length {config.context_length} tokens. Cell `{cell.name}` of the study "
        f"`{cell.study}`, made with blockscale. It is a base model of a scaling study, for research: neither tuned to "
        "follow instructions nor checked for what it may say."
    )


def _quality(record: EvaluateResult | None, trained: PretrainResult | None) -> str:
    if record is None:
        return "Not evaluated.\n"
    if trained is not None and trained.diverged:
        return "Its training diverged: it has no quality that could be compared.\n"
    values = ((metric.label, metric.of_record(record)) for metric in quality_metrics([record]))
    measured = [(label, f"{value:.4g}") for label, value in values if value is not None]
    return (
        f"On {record.documents:,} held-out documents ({record.target_tokens:,} target tokens, stride {record.stride}); "
        f"{_environment(record)}. Losses compare on the same documents and tokens only.\n\n"
        + _table(("score", "value"), measured)
    )


def _speed(record: BenchmarkResult | None) -> str:
    if record is None or not record.settings:
        return "Not measured.\n"
    rows = [
        (
            readable(name),
            f"{setting.prompt:,}",
            f"{setting.new_tokens:,}",
            f"{setting.batch:,}",
            f"{setting.tokens_per_second:,.0f}",
        )
        for name, setting in record.settings.items()
    ]
    head = ("setting", "prompt tokens", "new tokens", "batch", "tokens per second")
    return f"Greedy, at the fastest batch; {_environment(record)}.\n\n" + _table(head, rows)


def _training(cell: Described) -> str:
    if "source" in cell.record:
        source = cell.record["source"]
        return f"Trained elsewhere: read from `{source.get('path')}` ({source.get('format')}).\n"
    start = f"Started from another model's weights ({cell.record['start']}).\n\n" if cell.record.get("start") else ""
    done = ""
    if cell.pretrain is not None:
        trained = cell.pretrain
        done = (
            f"{trained.tokens:,} tokens in {trained.steps:,} steps, {trained.training_flops:.3g} FLOPs, "
            f"{trained.seconds:,.0f} s; {_environment(trained)}.\n\n"
        )
    recipe = [(f"`{key}`", f"`{value}`") for key, value in flat(cell.record.get("pretrain", {})).items() if value != []]
    return start + done + _table(("key", "value"), recipe)


def _data(cell: Described) -> str:
    corpus = cell.record.get("corpus")
    hashed = f" Hash of its tokens: `{corpus}`." if corpus else ""
    return (
        f"Corpus: {cell.corpus}.{hashed} The licence of the text is not known to the program that wrote this card, and "
        "neither is the licence of these weights: whoever passes them on has to state both.\n\n"
        f"Fingerprint of the training: `{cell.record.get('fingerprint', 'unknown')}`.\n"
    )


def _environment(record: PretrainResult | EvaluateResult | BenchmarkResult) -> str:
    measured = record.environment
    return f"{measured.device}, {measured.precision}, torch {measured.torch}, code {measured.revision[:10]}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines) + "\n"
