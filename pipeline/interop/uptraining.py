"""Uptraining: the weights of a block transformer that is made of a vanilla one (paper, section 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.block_transformer import BlockTransformer
from pipeline.models.config import BlockConfig, ModelConfig, StackConfig, VanillaConfig
from pipeline.models.language_model import LanguageModel
from pipeline.models.token_decoders import NeoxTokenDecoder
from pipeline.models.vanilla import VanillaTransformer

Layers = tuple[list[int], list[int]]


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


@torch.no_grad()
def uptrain_from(
    model: LanguageModel, source: LanguageModel, method: str = "partition", mean_projection: bool = True
) -> None:
    """Give ``model``, a block transformer, the weights of the vanilla ``source``.

    ``method`` says where the source's layers go: ``partition`` (lower ones to the block decoder, the others to the
    token decoder), ``skip`` (every other one to both) or ``duplicate`` (all to both). Both vocabulary tables and the
    head are the source's, the embedder's projection is the mean of a block's embeddings (unless ``mean_projection`` is
    False), and every slot is a copy of the context embedding. The block decoder's final norm stays as it is.
    Raises :class:`UserError` where the two do not fit.
    """
    check_uptraining(model.config, source.config, method)
    assert isinstance(model, BlockTransformer)
    assert isinstance(source, VanillaTransformer)
    decoder = model.token_decoder
    assert isinstance(decoder, NeoxTokenDecoder)
    block_layers, token_layers = METHODS[method](source.config.stack.layers, model.config)
    _copy_layers(source, block_layers, model.block_decoder.layers)
    _copy_layers(source, token_layers, decoder.stack.layers)
    decoder.stack.norm.load_state_dict(source.stack.norm.state_dict())
    for table in (model.embedder.get_parameter("embedding.weight"), decoder.embedding.weight):
        table.copy_(source.embedding.weight)
    decoder.head.weight.copy_(source.head.weight)
    identity = torch.eye(model.config.block_decoder.width)
    if mean_projection and model.embedder.projection is not None:
        _fill(model.embedder.projection, (identity / model.first).repeat(1, model.first))
    _fill(decoder.expansion, identity.repeat(model.config.slots, 1))


def check_uptraining(config: ModelConfig, vanilla: ModelConfig, method: str) -> None:
    """Raise :class:`UserError` unless a model of ``config`` can start from one of ``vanilla``."""
    if method not in METHODS:
        raise UserError(f"uptraining method {method!r} is unknown; it is one of {', '.join(METHODS)}")
    if not isinstance(config, BlockConfig) or not isinstance(vanilla, VanillaConfig):
        raise UserError("uptraining makes a block transformer of a vanilla one")
    _require("vocabulary", config.vocabulary, vanilla.vocabulary)
    _same_layers("block_decoder", config.block_decoder, vanilla.stack)
    _same_layers("token_decoder", config.token_decoder.stack, vanilla.stack)
    if config.token_decoder.kind == "cross_attention":
        raise UserError("token_decoder.kind: uptraining needs prefix or summation, not cross_attention")
    if config.embedder.stack is not None:
        raise UserError(f"embedder.kind: uptraining needs projection, not {config.embedder.kind}")
    if config.embedder.width != vanilla.stack.width:
        raise UserError(
            f"embedder: uptraining needs an embedding of the source's width {vanilla.stack.width}, not "
            f"{config.embedder.width}; take embedder.kind: projection with that width"
        )
    METHODS[method](vanilla.stack.layers, config)


def _same_layers(part: str, stack: StackConfig, source: StackConfig) -> None:
    for field in dataclasses.fields(StackConfig):
        if field.name != "layers":
            _require(f"{part}.{field.name}", getattr(stack, field.name), getattr(source, field.name))


def _require(key: str, value: object, right: object) -> None:
    if value != right:
        raise UserError(f"{key}: {value!r} does not fit the vanilla model to uptrain, which has {right!r}")


def _copy_layers(source: VanillaTransformer, chosen: list[int], layers: nn.ModuleList) -> None:
    for index, layer in zip(chosen, layers, strict=True):
        layer.load_state_dict(source.stack.layers[index].state_dict())


def _fill(linear: nn.Linear, weight: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.zero_()
