"""Small models of every kind that generates, with weights large enough that no two tokens tie."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.models import LanguageModel, build
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

VOCABULARY = 61
STACK = StackConfig(layers=2, width=32, heads=4, kv_heads=2, feed_forward=48)
WINDOWED = StackConfig(layers=2, width=32, heads=4, kv_heads=4, feed_forward=48, window=3)
NARROW = StackConfig(layers=2, width=24, heads=3, kv_heads=3, feed_forward=40)
DEEP = StackConfig(layers=3, width=24, heads=3, kv_heads=3, feed_forward=40)
LLAMA = LlamaConfig(layers=2, width=32, heads=4, kv_heads=2, feed_forward=40)
QWEN = LlamaConfig(3, 24, 4, 2, 32, window=3, query_key_norm=True, head_dim=10, global_every=2)
ENCODER = EncoderConfig(layers=1, width=32, heads=4, kv_heads=4, feed_forward=48)
T5 = T5Config(layers=1, width=32, heads=4, kv_heads=4, feed_forward=48)


def block(
    length: int,
    embedder: EmbedderConfig,
    decoder: TokenDecoderConfig,
    stack: StackConfig = STACK,
) -> BlockConfig:
    return BlockConfig(VOCABULARY, 64, length, embedder, stack, decoder)


CONFIGS: dict[str, ModelConfig] = {
    "vanilla": VanillaConfig(VOCABULARY, 64, STACK),
    "vanilla-window": VanillaConfig(VOCABULARY, 64, WINDOWED),
    "prefix-1": block(1, LookupConfig(32), PrefixConfig(STACK, 2)),
    "prefix-2": block(2, LookupConfig(16), PrefixConfig(NARROW, 1)),
    "prefix-4": block(4, LookupConfig(8), PrefixConfig(NARROW, 3)),
    "prefix-4-window": block(4, LookupConfig(8), PrefixConfig(STACK, 2), WINDOWED),
    "local-9": block(4, LookupConfig(8), PrefixConfig(STACK, 1, local=9), WINDOWED),
    "local-5-mixed": block(2, LookupConfig(16), PrefixConfig(NARROW, 2, local=5, mix=True)),
    "contexts-3": block(4, LookupConfig(8), PrefixConfig(NARROW, 2, contexts=3)),
    "contexts-local": block(2, LookupConfig(16), PrefixConfig(NARROW, 1, local=3, contexts=4), WINDOWED),
    "carried-4": block(4, LookupConfig(8), PrefixConfig(DEEP, 2, carry=True)),
    "carried-contexts": block(2, LookupConfig(16), PrefixConfig(LLAMA, 1, contexts=3, carry=True), WINDOWED),
    "memory-4": block(4, LookupConfig(8), PrefixConfig(DEEP, 2, memory=16, memory_layers=2), WINDOWED),
    "memory-local": block(3, ProjectionConfig(20, overlap=True), PrefixConfig(LLAMA, 1, local=2, memory=8)),
    "overlap-cls": block(3, ClsConfig(ENCODER, cls_tokens=2, overlap=True), SummationConfig(NARROW)),
    "convolution-overlap": block(
        3, ProjectionConfig(20, overlap=True, convolution=6), PrefixConfig(STACK, 1, local=2), WINDOWED
    ),
    "llama": VanillaConfig(VOCABULARY, 64, LLAMA),
    "llama-tied-qwen": VanillaConfig(VOCABULARY, 64, QWEN, tied=True),
    "llama-prefix": block(4, LookupConfig(6), PrefixConfig(LLAMA, 2, tied=True, contexts=2), QWEN),
    "llama-summation": block(3, ProjectionConfig(20), SummationConfig(LLAMA), LLAMA),
    "summation": block(4, ProjectionConfig(20), SummationConfig(NARROW)),
    "cross-attention": block(4, RobertaConfig(ENCODER), CrossAttentionConfig(T5)),
    "cls": block(3, ClsConfig(ENCODER, cls_tokens=2), CrossAttentionConfig(T5)),
}


def model(kind: str) -> LanguageModel:
    """A model with random norms and biases too, so that every part of the folded weights is at work."""
    built = build(CONFIGS[kind]).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in built.named_parameters():
            deviation = 0.1 if "embedding" in name else 0.3
            weight.add_(torch.randn(weight.shape, generator=generator) * deviation)
    return built


def next_logits(built: LanguageModel, prompt: list[int], new: list[int]) -> Tensor:
    """Logits [V] of what follows ``prompt + new``, by one full forward pass; ``prompt`` is padded to whole blocks."""
    padding = -len(prompt) % built.stride
    sequence = torch.tensor([[0] * padding + prompt + new + [0]])
    valid = torch.arange(sequence.shape[1])[None] >= padding
    with torch.no_grad():
        logits: Tensor = built(sequence, valid)[0, -1]
    return logits


def greedy(built: LanguageModel, prompt: list[int], count: int) -> list[int]:
    """Greedy generation the slow way: a full forward pass per token."""
    new: list[int] = []
    for _ in range(count):
        new.append(int(next_logits(built, prompt, new).argmax()))
    return new


def prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
