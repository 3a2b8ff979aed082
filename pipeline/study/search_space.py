"""The search's points: what a point makes of the study's variant, and the points that are known beforehand."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from pipeline.models.config import BlockConfig, ModelConfig, PrefixConfig
from pipeline.study.cells import Cell, model_config
from pipeline.study.schema import Search, Study, Variant

Point = dict[str, int]

# Each key of the space: its short form in names, and the part of a variant and the key there that it sets.
KEYS = {
    "block_layers": ("b", "block_decoder", "layers"),
    "token_layers": ("t", "token_decoder", "layers"),
    "block_width": ("bw", "block_decoder", "width"),
    "token_width": ("tw", "token_decoder", "width"),
    "block_kv_heads": ("bk", "block_decoder", "kv_heads"),
    "token_kv_heads": ("tk", "token_decoder", "kv_heads"),
    "prefix_length": ("p", "token_decoder", "prefix_length"),
    "embedder_width": ("e", "embedder", "width"),
}
LONGEST_NAME = 64


def choices(search: Search) -> dict[str, list[int]]:
    """The keys that the search varies, with their choices in order."""
    return {key: sorted(set(values)) for key, values in vars(search.space).items() if values}


def trial_study(study: Study, point: Point) -> tuple[Study, Cell]:
    """The study that a trial is a cell of: the point's variant, the search's tokens and setting, one device."""
    search = study.search
    assert search is not None
    name, size = variant_name(search.variant, point), study.sizes[search.size]
    if search.tokens is not None:
        size = dataclasses.replace(size, pretrain=dataclasses.replace(size.pretrain, tokens=search.tokens))
    settings = {search.setting: study.benchmark.settings[search.setting]}
    changed = dataclasses.replace(
        study,
        sizes=study.sizes | {search.size: size},
        pretrain=dataclasses.replace(study.pretrain, budgets=[]),
        variants=study.variants | {name: point_variant(study.variants[search.variant], point)},
        benchmark=dataclasses.replace(study.benchmark, settings=settings, baselines=False),
        hardware=dataclasses.replace(study.hardware, devices=1, num_nodes=1),
    )
    return changed, Cell("block", search.size, search.seed, point["block_length"], name)


def point_variant(base: Variant, point: Point) -> Variant:
    """``base`` with the point's layers, widths, KV heads and prefix length."""
    parts: dict[str, dict[str, int]] = {"embedder": {}, "block_decoder": {}, "token_decoder": {}}
    for key, (_, part, name) in KEYS.items():
        if key in point:
            parts[part][name] = point[key]
    changed: dict[str, Any] = {
        part: dataclasses.replace(getattr(base, part), **values) for part, values in parts.items()
    }
    return dataclasses.replace(base, **changed)


def variant_name(base: str, point: Point) -> str:
    """A name that tells the point: ``base_b2_t4_bw96``; the block length stands in the cell's name beside it."""
    name = "_".join([base, *(f"{short}{point[key]}" for key, (short, _, _) in KEYS.items() if key in point)])
    if len(name) <= LONGEST_NAME:
        return name
    return f"{base[: LONGEST_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def known_points(study: Study) -> list[Point]:
    """The points under ``search.enqueue``; what one leaves out is as in the size and the variant."""
    search = study.search
    assert search is not None
    varied = choices(search)
    points = []
    for given in search.enqueue:
        length = given.get("block_length", varied["block_length"][0])
        own = _point_of(model_config(study, Cell("block", search.size, 0, length, search.variant), vocabulary=64))
        points.append({key: given.get(key, own[key]) for key in varied})
    return points


def _point_of(config: ModelConfig) -> Point:
    assert isinstance(config, BlockConfig)
    block, token = config.block_decoder, config.token_decoder.stack
    prefix = config.token_decoder.prefix_length if isinstance(config.token_decoder, PrefixConfig) else 0
    return {
        "block_length": config.block_length,
        "block_layers": block.layers,
        "token_layers": token.layers,
        "block_width": block.width,
        "token_width": token.width,
        "block_kv_heads": block.kv_heads,
        "token_kv_heads": token.kv_heads,
        "prefix_length": prefix,
        "embedder_width": config.embedder.width,
    }
