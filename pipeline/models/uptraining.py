"""Which block transformers a vanilla one can be turned into, and where its layers go (paper, section 4). No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pipeline.base.errors import UserError
from pipeline.models.block_config import BlockConfig
from pipeline.models.embedder_config import TableConfig
from pipeline.models.family_config import ModelConfig, VanillaConfig
from pipeline.models.stack_config import StackConfig
from pipeline.models.token_decoder_config import NeoxDecoderConfig

Layers = tuple[list[int], list[int]]


def check_uptraining(config: ModelConfig, vanilla: ModelConfig, method: str) -> None:
    """Raise :class:`UserError` unless a model of ``config`` can start from one of ``vanilla``."""
    if method not in METHODS:
        raise UserError(f"uptraining method {method!r} is unknown; it is one of {', '.join(METHODS)}")
    if not isinstance(config, BlockConfig) or not isinstance(vanilla, VanillaConfig):
        raise UserError("uptraining makes a block transformer of a vanilla one")
    _require("vocabulary", config.vocabulary, vanilla.vocabulary)
    if not isinstance(config.token_decoder, NeoxDecoderConfig):
        raise UserError(f"token_decoder.kind: uptraining needs prefix or summation, not {config.token_decoder.kind}")
    if not isinstance(config.embedder, TableConfig):
        raise UserError(f"embedder.kind: uptraining needs projection, not {config.embedder.kind}")
    _same_layers("block_decoder", config.block_decoder, vanilla.stack)
    _same_layers("token_decoder", config.token_decoder.stack, vanilla.stack)
    if config.embedder.width != vanilla.stack.width:
        raise UserError(
            f"embedder: uptraining needs an embedding of the source's width {vanilla.stack.width}, not "
            f"{config.embedder.width}; take embedder.kind: projection with that width"
        )
    if config.token_decoder.tied and not vanilla.tied:
        raise UserError("tied: True does not fit the vanilla model to uptrain, whose head is a matrix of its own")
    inherited_layers(vanilla.stack.layers, config, method)


def _same_layers(part: str, stack: StackConfig, source: StackConfig) -> None:
    for name in ("layer", *(field.name for field in dataclasses.fields(source))):
        if name != "layers":
            _require(f"{part}.{name}", getattr(stack, name), getattr(source, name))


def _require(key: str, value: object, right: object) -> None:
    if value != right:
        raise UserError(f"{key}: {value!r} does not fit the vanilla model to uptrain, which has {right!r}")


def inherited_layers(layers: int, config: BlockConfig, method: str) -> Layers:
    """Of the vanilla model's ``layers``, those that go to the block decoder and those that go to the token decoder.

    Raises :class:`UserError` where their numbers do not fit.
    """
    return METHODS[method](layers, config)


def _partition(layers: int, config: BlockConfig) -> Layers:
    block, token = config.block_decoder.layers, config.token_decoder.stack.layers
    if block + token != layers:
        raise UserError(
            f"uptraining by partition needs {layers} layers in both decoders together, not {block} + {token}"
        )
    return list(range(block)), list(range(block, layers))


def _skip(layers: int, config: BlockConfig) -> Layers:
    return _both("skip", list(range(0, layers, 2)), config)


def _duplicate(layers: int, config: BlockConfig) -> Layers:
    return _both("duplicate", list(range(layers)), config)


def _both(method: str, chosen: list[int], config: BlockConfig) -> Layers:
    block, token = config.block_decoder.layers, config.token_decoder.stack.layers
    if (block, token) != (len(chosen), len(chosen)):
        raise UserError(f"uptraining by {method} needs {len(chosen)} layers in each decoder, not {block} and {token}")
    return chosen, chosen


METHODS: dict[str, Callable[[int, BlockConfig], Layers]] = {
    "partition": _partition,
    "skip": _skip,
    "duplicate": _duplicate,
}
