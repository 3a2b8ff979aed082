"""Tiny models of both families with random weights large enough that predictions differ."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pipeline.models import LanguageModel, build
from pipeline.models.config import (
    BlockConfig,
    EncoderConfig,
    LookupConfig,
    ModelConfig,
    PrefixConfig,
    RobertaConfig,
    StackConfig,
    VanillaConfig,
)

CONTEXT = 24
VOCABULARY = 320
STACK = StackConfig(layers=2, width=32, heads=4, kv_heads=4, feed_forward=64)


def config(block_length: int | None, embedder: str = "lookup", vocabulary: int = VOCABULARY) -> ModelConfig:
    if block_length is None:
        return VanillaConfig(vocabulary, CONTEXT, STACK)
    encoder = EncoderConfig(layers=1, width=16, heads=2, kv_heads=2, feed_forward=32)
    return BlockConfig(
        vocabulary,
        CONTEXT,
        block_length,
        RobertaConfig(encoder) if embedder == "roberta" else LookupConfig(STACK.width // block_length),
        STACK,
        PrefixConfig(STACK, prefix_length=2),
    )


@pytest.fixture(scope="session")
def make() -> Callable[..., LanguageModel]:
    """A model of that block length (``None``: vanilla), in evaluation mode."""

    def build_model(block_length: int | None, embedder: str = "lookup") -> LanguageModel:
        model = build(config(block_length, embedder)).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
        return model

    return build_model


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A token per byte; end of text is 0, padding 1."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<|endoftext|>", "<|padding|>", *alphabet])}
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(["<|endoftext|>", "<|padding|>"])
    built.encode_special_tokens = True
    return built
