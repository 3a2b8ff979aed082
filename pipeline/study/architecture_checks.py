"""What the sizes and variants of a study must fulfil, and that each of their keys decides something."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.base.errors import UserError
from pipeline.models.parts import LARGEST
from pipeline.models.stack_config import LayerKeys
from pipeline.models.uptraining import METHODS, check_uptraining
from pipeline.study.cells import Cell, model_config, whole_cells
from pipeline.study.rules import choice, positive, require
from pipeline.study.schema import Size, Study, Variant

STACK_KEYS = ("layers", "width", "heads", "kv_heads", "feed_forward")
BLOCK_DECODER_KEYS = (*STACK_KEYS, "window", "global_every")


def check_sizes(study: Study) -> None:
    """Raise :class:`UserError` for a size whose numbers are out of range."""
    require(bool(study.sizes), "sizes", study.sizes, "define at least one size, such as {s: {layers: 2, width: 64}}")
    for name, size in study.sizes.items():
        key = f"sizes.{name}"
        _in_range(key, size, STACK_KEYS)
        _in_range(key, size, ("window", "global_every"))
        _in_range(f"{key}.layer", size.layer, _numbers(size.layer))
        _in_range(f"{key}.block_decoder", size.block_decoder, BLOCK_DECODER_KEYS)
        _in_range(f"{key}.token_decoder", size.token_decoder, STACK_KEYS)


def check_variants(study: Study) -> None:
    """Raise :class:`UserError` for a variant whose values are out of range."""
    for name, variant in study.variants.items():
        key = f"variants.{name}"
        require(
            len(variant.allocation) == 2 and min(variant.allocation) > 0,
            f"{key}.allocation",
            variant.allocation,
            "it is [block decoder share, token decoder share], both greater than 0, such as [1, 1]",
        )
        if variant.init is not None:
            choice(f"{key}.init.method", variant.init.method, METHODS)
        for part in ("embedder", "block_decoder", "token_decoder", "layer"):
            keys = getattr(variant, part) or LayerKeys()
            _in_range(f"{key}.{part}", keys, _numbers(keys))


def _numbers(keys: object) -> list[str]:
    """The whole numbers among a part's keys that must be above 0: not those that are 0 where nothing is said."""
    given = {field.name: field.default for field in dataclasses.fields(keys)}  # type: ignore[arg-type]
    return [name for name, value in vars(keys).items() if type(value) is int and (value or given[name] != 0)]


def _in_range(key: str, values: object, names: Iterable[str]) -> None:
    """Ranges of a model's keys: far beyond any model, but it can still be counted, and planned with."""
    for name in names:
        value, most = getattr(values, name), LARGEST.get(name, 1_000_000)
        positive(f"{key}.{name}", value)
        require(value is None or value <= most, f"{key}.{name}", value, f"it is at most {most:,}")


def check_effects(study: Study) -> None:
    """Raise :class:`UserError` for a key of a size or a variant that decides nothing in any cell that has it."""
    built = list(_architectures(study))
    for name, variant in study.variants.items():
        _check_allocation(study, name, variant, [cell for cell in built if cell.variant == name])
    for name, size in study.sizes.items():
        own = [cell for cell in built if cell.size == name]
        _check_size(study, name, size, own)


def _architectures(study: Study) -> Iterator[Cell]:
    """A cell of every architecture in the study, and the one that a search starts from."""
    seen = set()
    for cell in (*whole_cells(study), *_search_start(study)):
        architecture = (cell.family, cell.size, cell.block_length, cell.variant)
        if cell.family != "pretrained" and architecture not in seen:
            seen.add(architecture)
            yield cell


def _search_start(study: Study) -> list[Cell]:
    search = study.search
    if search is None or search.size not in study.sizes or search.variant not in study.variants:
        return []
    return [Cell("block", search.size, 0, length, search.variant) for length in search.space.block_length[:1]]


def _check_allocation(study: Study, name: str, variant: Variant, having: list[Cell]) -> None:
    if variant.allocation == [1, 1]:
        return

    def explicit(size: Size | None) -> bool:
        return all(
            getattr(variant, part).layers or (size is not None and getattr(size, part).layers)
            for part in ("block_decoder", "token_decoder")
        )

    idle = explicit(None) or (bool(having) and all(explicit(study.sizes[cell.size]) for cell in having))
    right = "block_decoder.layers and token_decoder.layers say how many each decoder has; leave it or one of them out"
    require(not idle, f"variants.{name}.allocation", variant.allocation, right)


def _check_size(study: Study, name: str, size: Size, having: list[Cell]) -> None:
    """Change each key that is given, and see whether any architecture changes.

    A decoder's keys are for block cells; a size without any may keep them.
    """
    block = [cell for cell in having if cell.family == "block"]
    for key in ("heads", "kv_heads", "feed_forward", "window", "global_every"):
        _check_read(study, name, (key,), getattr(size, key), having)
    if size.tied:
        _require_read(study, name, "tied", True, dataclasses.replace(size, tied=False), having)
    if size.layer != LayerKeys():
        _require_read(study, name, "layer.kind", size.layer.kind, dataclasses.replace(size, layer=LayerKeys()), having)
    for part, keys in (("block_decoder", BLOCK_DECODER_KEYS), ("token_decoder", STACK_KEYS)):
        for key in keys:
            _check_read(study, name, (part, key), getattr(getattr(size, part), key), block)


def _check_read(study: Study, name: str, path: tuple[str, ...], value: int | None, having: list[Cell]) -> None:
    if value is not None:
        other = _with(study.sizes[name], path, value + 1)
        _require_read(study, name, ".".join(path), value, other, having)


def _require_read(study: Study, name: str, key: str, value: object, other: Size, having: list[Cell]) -> None:
    """Raise :class:`UserError` unless a cell is another one with the size ``other``, where ``key`` differs."""
    if not having:
        return
    changed = dataclasses.replace(study, sizes=study.sizes | {name: other})
    some = ", ".join(cell.name for cell in having[:3]) + (", ..." if len(having) > 3 else "")
    right = f"no cell of this size reads it ({some}): their own keys come first, or they have no such part; remove it"
    require(any(_differ(study, changed, cell) for cell in having), f"sizes.{name}.{key}", value, right)


def _with(size: Size, path: tuple[str, ...], value: int) -> Size:
    part, *rest = path
    changed: Any = dataclasses.replace(getattr(size, part), **{rest[0]: value}) if rest else value
    return dataclasses.replace(size, **{part: changed})


def _differ(study: Study, changed: Study, cell: Cell) -> bool:
    before = model_config(study, cell, vocabulary=64)
    try:
        return model_config(changed, cell, vocabulary=64) != before
    except UserError:
        return True


def check_starts(study: Study) -> None:
    """Raise :class:`UserError` for an uptrained cell that cannot start from its source, if that is of the study.

    What a model trained elsewhere is like is known when it is brought in.
    """
    every = whole_cells(study)
    vanilla = {cell.name: model_config(study, cell, vocabulary=64) for cell in every if cell.family == "vanilla"}
    for cell in every:
        if cell.source not in vanilla:
            continue
        assert cell.variant is not None
        init = study.variants[cell.variant].init
        assert init is not None
        try:
            check_uptraining(model_config(study, cell, vocabulary=64), vanilla[cell.source], init.method)
        except UserError as error:
            raise UserError(f"cell {cell.name} cannot start from {cell.source}: {error}") from None
