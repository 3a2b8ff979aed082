"""The search's points: what a point makes of the study's variant, and the points that are known beforehand."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.models.config import BlockConfig, ModelConfig, PrefixConfig
from pipeline.study.cells import Cell, model_config
from pipeline.study.pretraining import over, written
from pipeline.study.recipe_space import SHORT, Point, choices, override, trial_name, value_of
from pipeline.study.schema import Override, Study, Variant

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
    "local": ("l", "token_decoder", "local"),
    "memory": ("m", "token_decoder", "memory"),
}
FROM_ZERO = ("local", "memory")
NAMES = {key: short for key, (short, _, _) in KEYS.items()} | SHORT


def trial_study(study: Study, point: Point) -> tuple[Study, Cell]:
    """The study that a trial is a cell of: the point's variant, the search's tokens and setting, one device."""
    search = study.search
    assert search is not None
    name, variant = trial_name(search.variant, point, NAMES), trial_variant(study, point)
    if search.tokens is not None:
        variant = dataclasses.replace(variant, pretrain=dataclasses.replace(variant.pretrain, tokens=search.tokens))
    settings = {search.setting: study.benchmark.settings[search.setting]}
    changed = dataclasses.replace(
        study,
        variants=study.variants | {name: variant},
        pretrain=dataclasses.replace(study.pretrain, budgets=[]),
        evaluate=dataclasses.replace(study.evaluate, at=[]),
        benchmark=dataclasses.replace(study.benchmark, settings=settings, baselines=False),
        hardware=dataclasses.replace(study.hardware, devices=1, num_nodes=1),
    )
    return changed, Cell("block", search.size, search.seed, _length(point), name)


def trial_variant(study: Study, point: Point) -> Variant:
    """The search's variant with the point's layers, widths and the like, and with its recipe.

    Where ``recipes`` has one for the model that the variant makes at that block length, the point's goes over it.
    """
    start = starting_cell(study, _length(point))
    base = study.variants[start.variant or ""]
    recipe: Override = over(base.pretrain, study.recipes.get(start.model, Override()))
    return dataclasses.replace(point_variant(base, point), pretrain=over(recipe, override(point)))


def starting_cell(study: Study, block_length: int) -> Cell:
    """The cell that trials of that block length start from."""
    search = study.search
    assert search is not None
    return Cell("block", search.size, search.seed, block_length, search.variant)


def _length(point: Point) -> int:
    length = point["block_length"]
    assert isinstance(length, int)
    return length


def point_variant(base: Variant, point: Point) -> Variant:
    """``base`` with the point's layers, widths, KV heads, prefix length, local tokens and memories."""
    parts: dict[str, dict[str, Any]] = {"embedder": {}, "block_decoder": {}, "token_decoder": {}}
    for key, (_, part, name) in KEYS.items():
        if key in point:
            parts[part][name] = point[key]
    changed: dict[str, Any] = {
        part: dataclasses.replace(getattr(base, part), **values) for part, values in parts.items()
    }
    return dataclasses.replace(base, **changed)


def known_points(study: Study) -> list[Point]:
    """The points under ``search.enqueue``; what one leaves out is as in the size and the variant."""
    search = study.search
    assert search is not None
    varied = choices(search.space)
    points = []
    for given in search.enqueue:
        cell = starting_cell(study, _length({"block_length": varied["block_length"][0]} | given))
        recipe = written(study, cell)
        own: Point = _point_of(model_config(study, cell, vocabulary=64))
        own |= {key: value_of(recipe, key) for key in SHORT if key in varied}
        points.append({key: given.get(key, own[key]) for key in varied})
    return points


def _point_of(config: ModelConfig) -> Point:
    assert isinstance(config, BlockConfig)
    block, token = config.block_decoder, config.token_decoder.stack
    decoder = config.token_decoder
    prefix, local, memory = (
        (decoder.prefix_length, decoder.local, decoder.memory) if isinstance(decoder, PrefixConfig) else (0, 0, 0)
    )
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
        "local": local,
        "memory": memory,
    }
