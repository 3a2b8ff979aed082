"""Small models of every kind, by name."""

from __future__ import annotations

from dataclasses import replace

from pipeline.models.config import (
    BlockConfig,
    ClsConfig,
    CrossAttentionConfig,
    EmbedderConfig,
    EncoderConfig,
    LlamaConfig,
    LookupConfig,
    ModelConfig,
    PrefixConfig,
    ProjectionConfig,
    RobertaConfig,
    StackConfig,
    SummationConfig,
    T5Config,
    TokenDecoderConfig,
    VanillaConfig,
)

VOCABULARY = 37
STACK = StackConfig(layers=2, width=32, heads=4, kv_heads=4, feed_forward=48)
WIDE = StackConfig(layers=1, width=48, heads=3, kv_heads=1, feed_forward=64)
STACK3 = StackConfig(layers=3, width=32, heads=4, kv_heads=4, feed_forward=48)
GROUPED = StackConfig(layers=2, width=32, heads=4, kv_heads=2, feed_forward=64)
LLAMA = LlamaConfig(layers=2, width=32, heads=4, kv_heads=2, feed_forward=40)
QWEN = LlamaConfig(layers=1, width=24, heads=4, kv_heads=2, feed_forward=32, query_key_norm=True, head_dim=10)
ENCODER = EncoderConfig(layers=2, width=24, heads=2, kv_heads=2, feed_forward=32)
T5 = T5Config(layers=2, width=32, heads=4, kv_heads=4, feed_forward=48)
T5_GROUPED = T5Config(layers=1, width=48, heads=4, kv_heads=2, feed_forward=48)


def block(
    block_length: int,
    embedder: EmbedderConfig,
    token_decoder: TokenDecoderConfig,
    block_decoder: StackConfig = STACK,
) -> BlockConfig:
    return BlockConfig(VOCABULARY, 64, block_length, embedder, block_decoder, token_decoder)


PREFIX = PrefixConfig(STACK, 2)
VARIANTS: dict[str, ModelConfig] = {
    "vanilla": VanillaConfig(VOCABULARY, 64, STACK),
    "vanilla_multi_query": VanillaConfig(VOCABULARY, 64, StackConfig(2, 32, 4, 1, 48, rotary_fraction=1.0)),
    "vanilla_window": VanillaConfig(VOCABULARY, 64, StackConfig(2, 32, 4, 2, 48, window=3)),
    "lookup_prefix": block(4, LookupConfig(8), PREFIX),
    "lookup_prefix_1_block_1": block(1, LookupConfig(32), PrefixConfig(STACK, 1)),
    "lookup_prefix_5_unequal": block(2, LookupConfig(16), PrefixConfig(WIDE, 5), GROUPED),
    "projection_prefix_block_3": block(3, ProjectionConfig(20), PREFIX),
    "roberta_prefix": block(4, RobertaConfig(ENCODER), PrefixConfig(STACK, 1)),
    "roberta_padding_prefix": block(3, RobertaConfig(ENCODER, padding_token=1), PREFIX),
    "cls_summation": block(4, ClsConfig(ENCODER, 1, 3), SummationConfig(STACK)),
    "megabyte": block(4, LookupConfig(8), SummationConfig(WIDE), GROUPED),
    "cls_cross_attention": block(4, ClsConfig(ENCODER, 1, 2), CrossAttentionConfig(T5)),
    "cross_attention_grouped": block(3, ProjectionConfig(16), CrossAttentionConfig(T5_GROUPED)),
    "local_7_block_3": block(3, ProjectionConfig(20), PrefixConfig(STACK, 2, local=7)),
    "contexts_local": block(2, LookupConfig(16, overlap=True), PrefixConfig(WIDE, 1, local=5, contexts=2), GROUPED),
    "contexts_mixed": block(3, ProjectionConfig(20), PrefixConfig(STACK, 2, local=2, mix=True, contexts=4)),
    "carried": block(4, LookupConfig(8), PrefixConfig(STACK, 2, carry=True)),
    "carried_contexts": block(3, ProjectionConfig(20), PrefixConfig(LLAMA, 1, contexts=3, carry=True)),
    "memory": block(4, LookupConfig(8), PrefixConfig(LLAMA, 2, memory=16)),
    "memory_local_contexts": block(
        3,
        ProjectionConfig(20, overlap=True),
        PrefixConfig(STACK3, 1, local=4, contexts=2, memory=8, memory_layers=2),
        GROUPED,
    ),
    "overlap_cls": block(3, ClsConfig(ENCODER, 1, 2, overlap=True), SummationConfig(STACK)),
    "convolution_overlap": block(3, ProjectionConfig(20, overlap=True, convolution=6), PrefixConfig(STACK, 2, local=4)),
    "llama": VanillaConfig(VOCABULARY, 64, LLAMA),
    "llama_tied_qwen": VanillaConfig(VOCABULARY, 64, QWEN, tied=True),
    "llama_prefix_pattern": block(
        4, LookupConfig(8), PrefixConfig(QWEN, 2, tied=True), replace(LLAMA, window=2, global_every=2)
    ),
    "llama_cross_attention": block(3, ProjectionConfig(16), CrossAttentionConfig(T5), LlamaConfig(1, 32, 4, 4, 40)),
    "cross_attention_block_20": block(20, ProjectionConfig(8), CrossAttentionConfig(T5)),
}
