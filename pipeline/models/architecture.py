"""From a study's keys to a model's configuration: what a size and a variant leave unsaid is decided here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from pipeline.base.made_of import added
from pipeline.models.block_config import BlockConfig
from pipeline.models.embedder_config import EmbedderKeys, LookupKeys
from pipeline.models.family_config import VanillaConfig
from pipeline.models.stack_config import LayerKeys, StackConfig, default_heads
from pipeline.models.token_decoder_config import (
    BlockDecoderKeys,
    CrossAttentionKeys,
    NeoxDecoderConfig,
    PrefixKeys,
    StackKeys,
    TokenDecoderKeys,
)


@dataclass(frozen=True)
class Shape:
    """A body budget that both families share. A variant's decoder keys take precedence over the size's.

    ``layer`` is the kind of layers of every causal stack; ``window`` and ``global_every`` are a
    vanilla model's. ``tied``: the head over the
    vocabulary is the table of the inputs of a vanilla model, or of the token decoder.
    """

    layers: int
    width: int
    heads: int | None = None
    kv_heads: int | None = None
    feed_forward: int | None = None
    window: int | None = None
    layer: LayerKeys = added(LayerKeys())
    tied: bool = added(False)
    global_every: int | None = added(None)
    block_decoder: BlockDecoderKeys = field(default_factory=BlockDecoderKeys)
    token_decoder: StackKeys = field(default_factory=StackKeys)


@dataclass(frozen=True)
class Parts:
    """What a block transformer is made of. ``allocation`` is the ratio of its decoders' layers (paper, section 3.3).

    ``layer``: the kind of layers where it is not the size's.
    """

    allocation: list[int] = field(default_factory=lambda: [1, 1])
    embedder: EmbedderKeys = field(default_factory=LookupKeys)
    block_decoder: BlockDecoderKeys = field(default_factory=BlockDecoderKeys)
    token_decoder: TokenDecoderKeys = field(default_factory=PrefixKeys)
    layer: LayerKeys | None = added(None)


def vanilla_config(shape: Shape, vocabulary: int, context_length: int) -> VanillaConfig:
    """The vanilla model of a size. Raises ``ValueError`` where its numbers do not fit together."""
    stack = replace(_stack(shape, [], shape.layers), window=shape.window, global_every=shape.global_every)
    return VanillaConfig(vocabulary, context_length, stack, shape.tied)


def block_config(shape: Shape, parts: Parts, block_length: int, vocabulary: int, context_length: int) -> BlockConfig:
    """The block transformer of a size and a variant. Raises ``ValueError`` where they do not fit together."""
    block_layers, token_layers = split_layers(shape.layers, parts.allocation)
    shape = shape if parts.layer is None else replace(shape, layer=parts.layer)
    of_t5 = isinstance(parts.token_decoder, CrossAttentionKeys)  # whose layers are of a kind of their own
    block_keys = [parts.block_decoder, shape.block_decoder]
    block_decoder = replace(
        _stack(shape, block_keys, block_layers),
        window=_chosen(block_keys, "window"),
        global_every=_chosen(block_keys, "global_every"),
    )
    token_stack = _stack(
        replace(shape, layer=LayerKeys()) if of_t5 else shape, [parts.token_decoder, shape.token_decoder], token_layers
    )
    token_decoder = parts.token_decoder.config(token_stack)
    if isinstance(token_decoder, NeoxDecoderConfig):
        token_decoder = replace(token_decoder, tied=shape.tied)
    embedder = parts.embedder.config(block_length, block_decoder.width)
    return BlockConfig(
        vocabulary=vocabulary,
        context_length=context_length,
        block_length=block_length,
        embedder=replace(embedder, overlap=parts.embedder.overlap),  # type: ignore[type-var]
        block_decoder=block_decoder,
        token_decoder=token_decoder,
    )


def split_layers(layers: int, allocation: list[int]) -> tuple[int, int]:
    """Layers of the block and of the token decoder by ratio (paper, section 3.3), at least one each."""
    block, token = allocation
    first = min(max(round(layers * block / (block + token)), 1), layers - 1)
    return first, layers - first


def _chosen(overrides: Sequence[StackKeys], key: str) -> int | None:
    return next((value for override in overrides if (value := getattr(override, key)) is not None), None)


def _stack(shape: Shape, overrides: Sequence[StackKeys], layers: int) -> StackConfig:
    """A stack of the size's shape, changed by the first override that says so.

    Heads and feed-forward width are the size's only where the width is: other widths have defaults of their own.
    """

    chosen = partial(_chosen, overrides)
    width = chosen("width") or shape.width
    own = shape if width == shape.width else StackKeys()
    heads = chosen("heads") or own.heads or default_heads(width)
    kv_heads = chosen("kv_heads") or own.kv_heads or heads
    feed_forward = chosen("feed_forward") or own.feed_forward or shape.layer.of.default_feed_forward(width)
    return shape.layer.stack(chosen("layers") or layers, width, heads, kv_heads, feed_forward)
