"""From a study's keys to architectures: what a size and a variant leave unsaid."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.models.architecture import Parts, Shape, block_config, split_layers, vanilla_config
from pipeline.models.config import (
    ClsConfig,
    CrossAttentionConfig,
    EncoderConfig,
    LlamaConfig,
    LookupConfig,
    PrefixConfig,
    ProjectionConfig,
    RobertaConfig,
    StackConfig,
    SummationConfig,
    T5Config,
    VanillaConfig,
)
from pipeline.models.embedder_config import ClsKeys, EmbedderKeys, LookupKeys, ProjectionKeys, RobertaKeys
from pipeline.models.stack_config import LayerKeys, LlamaKeys, default_heads
from pipeline.models.token_decoder_config import (
    BlockDecoderKeys,
    CrossAttentionKeys,
    PrefixKeys,
    StackKeys,
    SummationKeys,
)

SHAPE = Shape(6, 64)


@pytest.mark.parametrize(
    ("allocation", "expected"),
    [([1, 1], (6, 6)), ([5, 1], (10, 2)), ([1, 5], (2, 10)), ([99, 1], (11, 1)), ([1, 99], (1, 11))],
)
def test_allocation_splits_the_layers_and_leaves_one_each(allocation: list[int], expected: tuple[int, int]) -> None:
    assert split_layers(12, allocation) == expected


@pytest.mark.parametrize(("width", "heads"), [(256, 8), (512, 8), (768, 12), (1024, 16), (2048, 16)])
def test_heads_are_those_of_the_published_configurations(width: int, heads: int) -> None:
    assert default_heads(width) == heads


def test_a_vanilla_model_has_the_sizes_shape_and_window() -> None:
    shape = Shape(3, 64, heads=4, kv_heads=2, feed_forward=100, window=7, block_decoder=BlockDecoderKeys(layers=9))
    assert vanilla_config(shape, 50, 16).stack == StackConfig(3, 64, 4, 2, 100, window=7)


@pytest.mark.parametrize(
    ("keys", "config"),
    [
        (LookupKeys(), LookupConfig(16)),
        (ProjectionKeys(), ProjectionConfig(64)),
        (ProjectionKeys(width=24), ProjectionConfig(24)),
        (RobertaKeys(), RobertaConfig(EncoderConfig(3, 256, 8, 8, 1024))),
        (RobertaKeys(width=32, layers=1, heads=4), RobertaConfig(EncoderConfig(1, 32, 4, 4, 128))),
        (ClsKeys(width=32, cls_tokens=2), ClsConfig(EncoderConfig(3, 32, 1, 1, 128), cls_tokens=2)),
    ],
)
def test_embedders(keys: EmbedderKeys, config: object) -> None:
    assert block_config(SHAPE, Parts(embedder=keys), 4, 50, 16).embedder == config


def test_what_stands_before_a_block() -> None:
    keys = LookupKeys(overlap=True, convolution=3), PrefixKeys(local=6, mix=True)
    made = block_config(SHAPE, Parts(embedder=keys[0], token_decoder=keys[1]), 4, 50, 16)
    assert made.embedder == LookupConfig(16, overlap=True, convolution=3)
    assert made.token_decoder == PrefixConfig(StackConfig(3, 64, 2, 2, 256), 2, local=6, mix=True)
    assert made.recent == 6
    assert made.history == 2
    assert block_config(SHAPE, Parts(embedder=RobertaKeys(overlap=True)), 4, 50, 16).embedder.overlap


def test_token_decoders() -> None:
    stack = StackConfig(3, 64, 2, 2, 256)
    for keys, config in (
        (PrefixKeys(), PrefixConfig(stack, 2)),
        (PrefixKeys(prefix_length=5, layers=1), PrefixConfig(StackConfig(1, 64, 2, 2, 256), 5)),
        (SummationKeys(width=32), SummationConfig(StackConfig(3, 32, 1, 1, 128))),
        (CrossAttentionKeys(), CrossAttentionConfig(T5Config(3, 64, 2, 2, 256))),
    ):
        assert block_config(SHAPE, Parts(token_decoder=keys), 4, 50, 16).token_decoder == config


def test_a_variants_decoder_keys_come_before_the_sizes() -> None:
    shape = Shape(
        6, 64, heads=4, block_decoder=BlockDecoderKeys(layers=5, width=32), token_decoder=StackKeys(kv_heads=2)
    )
    made = block_config(shape, Parts(allocation=[1, 5], block_decoder=BlockDecoderKeys(width=128)), 4, 50, 16)
    assert made.block_decoder == StackConfig(5, 128, 4, 4, 512)
    assert made.token_decoder.stack == StackConfig(5, 64, 4, 2, 256)


def test_a_pattern_of_windows_is_of_a_vanilla_model_or_a_block_decoder() -> None:
    shape = Shape(8, 64, window=7, global_every=4, block_decoder=BlockDecoderKeys(window=5))
    assert vanilla_config(shape, 50, 16).stack.windows == [7, 7, 7, None] * 2
    made = block_config(shape, Parts(block_decoder=BlockDecoderKeys(global_every=2)), 4, 50, 16)
    assert made.block_decoder.windows == [5, None] * 2
    assert made.token_decoder.stack.windows == [None] * 4
    for wrong in (Shape(8, 64, global_every=4), Shape(2, 64, window=7, global_every=3)):
        with pytest.raises(ValueError, match="says nothing: it is how often a layer has no window"):
            vanilla_config(wrong, 50, 16)


def test_layers_of_another_kind() -> None:
    keys = LlamaKeys(query_key_norm=True, head_dim=16, rotary_base=500.0)
    shape, stack = Shape(4, 64, layer=keys, tied=True), LlamaConfig(4, 64, 2, 2, 168, None, 1.0, 500.0, 1e-5, True, 16)
    assert vanilla_config(shape, 50, 16) == VanillaConfig(50, 16, stack, tied=True)
    made = block_config(shape, Parts(), 4, 50, 16)
    assert made.block_decoder == replace(stack, layers=2)
    assert made.token_decoder == PrefixConfig(replace(stack, layers=2), 2, tied=True)
    neox = block_config(shape, Parts(layer=LayerKeys(), token_decoder=PrefixKeys(feed_forward=99)), 4, 50, 16)
    assert neox.block_decoder == StackConfig(2, 64, 2, 2, 256)
    assert neox.token_decoder.stack == StackConfig(2, 64, 2, 2, 99)
    crossed = block_config(shape, Parts(token_decoder=CrossAttentionKeys()), 4, 50, 16)
    assert crossed.token_decoder == CrossAttentionConfig(T5Config(2, 64, 2, 2, 256))


@pytest.mark.parametrize("width", [64, 128, 256, 512, 768, 1024, 2048])
def test_llama_layers_have_by_default_as_many_parameters_as_neox_layers(width: int) -> None:
    neox, llama = (vanilla_config(Shape(4, width, layer=keys), 50, 16).stack for keys in (LayerKeys(), LlamaKeys()))
    assert llama.parameters == pytest.approx(neox.parameters, rel=0.025)
    assert llama.feed_forward % (8 if width < 512 else 64) == 0


def test_a_lookup_embedder_needs_a_width_that_its_blocks_divide() -> None:
    with pytest.raises(ValueError, match="not 3 and 64; take another block length or"):
        block_config(SHAPE, Parts(), 3, 50, 16)
