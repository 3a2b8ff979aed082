"""From a study's keys to a model's configuration: what a size and a variant leave unsaid is decided here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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
    TokenDecoderConfig,
    TokenDecoderKeys,
)


@dataclass(frozen=True)
class Shape:
    """A body budget that both families share. A variant's decoder keys take precedence over the size's.

    ``layer`` is the kind of layers of every causal stack; ``window`` and ``global_every`` are a vanilla model's.
    ``tied``: the head is the table of inputs, of a vanilla model and of a token decoder.
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
    seen = BlockDecoderKeys(window=shape.window, global_every=shape.global_every)
    return VanillaConfig(vocabulary, context_length, _stack(shape, [seen], shape.layers), shape.tied)


def block_config(shape: Shape, parts: Parts, block_length: int, vocabulary: int, context_length: int) -> BlockConfig:
    """The block transformer of a size and a variant. Raises ``ValueError`` where they do not fit together."""
    block_layers, token_layers = split_layers(shape.layers, parts.allocation)
    shape = shape if parts.layer is None else replace(shape, layer=parts.layer)
    block_decoder = _stack(shape, [parts.block_decoder, shape.block_decoder], block_layers)
    embedder = parts.embedder.config(block_length, block_decoder.width)
    return BlockConfig(
        vocabulary=vocabulary,
        context_length=context_length,
        block_length=block_length,
        embedder=replace(embedder, overlap=parts.embedder.overlap),  # type: ignore[type-var]
        block_decoder=block_decoder,
        token_decoder=_token_decoder(shape, parts.token_decoder, token_layers),
    )


def split_layers(layers: int, allocation: list[int]) -> tuple[int, int]:
    """Layers of the block and of the token decoder by ratio (paper, section 3.3), at least one each."""
    block, token = allocation
    first = min(max(round(layers * block / (block + token)), 1), layers - 1)
    return first, layers - first


def _token_decoder(shape: Shape, keys: TokenDecoderKeys, layers: int) -> TokenDecoderConfig:
    if isinstance(keys, CrossAttentionKeys):  # whose layers are T5's, whatever the other ones are
        shape = replace(shape, layer=LayerKeys())
    made = keys.config(_stack(shape, [keys, shape.token_decoder], layers))
    return replace(made, tied=shape.tied) if isinstance(made, NeoxDecoderConfig) else made


def _stack(shape: Shape, overrides: Sequence[StackKeys], layers: int) -> StackConfig:
    """A stack of the size's shape, changed by the first override that says so.

    Heads and feed-forward width are the size's only where the width is: other widths have defaults of their own.
    """

    def chosen(key: str) -> int | None:
        given = (getattr(override, key, None) for override in overrides)
        return next((value for value in given if value is not None), None)

    width = chosen("width") or shape.width
    own = shape if width == shape.width else StackKeys()
    heads = chosen("heads") or own.heads or default_heads(width)
    kv_heads = chosen("kv_heads") or own.kv_heads or heads
    feed_forward = chosen("feed_forward") or own.feed_forward or shape.layer.of.default_feed_forward(width)
    stack = shape.layer.stack(chosen("layers") or layers, width, heads, kv_heads, feed_forward)
    return replace(stack, window=chosen("window"), global_every=chosen("global_every"))
