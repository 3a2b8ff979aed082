"""Architectures as data: exact round trips, and what does not go together is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.models.config import (
    BlockConfig,
    EmbedderConfig,
    StackConfig,
    TokenDecoderConfig,
    from_dict,
    to_dict,
)
from tests.models.variants import ENCODER, PREFIX, STACK, VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_round_trip_through_json(name: str) -> None:
    config = VARIANTS[name]
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_unknown_and_missing_keys_are_refused() -> None:
    values = to_dict(VARIANTS["lookup_prefix"])
    for wrong in ({"extra": 1}, {"family": "other"}, {"block_decoder": {"layers": 1}}):
        with pytest.raises(ValueError):
            from_dict(values | wrong)
    del values["embedder"]
    with pytest.raises(ValueError, match="embedder"):
        from_dict(values)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1, 30, 4, 4, 8), "width 30 is not a multiple of heads 4"),
        ((1, 32, 4, 3, 8), "heads 4 is not a multiple of kv_heads 3"),
        ((0, 32, 4, 4, 8), "layers 0 must be a whole number of at least 1"),
        ((1, 32, 4, 4, 8, 0), "window 0 must be a whole number of at least 1"),
    ],
)
def test_stacks_that_cannot_be(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StackConfig(*sizes)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda: EmbedderConfig("bag", 8), "embedder kind 'bag' is unknown"),
        (lambda: EmbedderConfig("roberta", 8), "needs a stack"),
        (lambda: EmbedderConfig("lookup", 24, ENCODER), "has no stack"),
        (lambda: EmbedderConfig("roberta", 8, ENCODER), "width 8 is not its encoder's, 24"),
        (lambda: EmbedderConfig("cls", 24, ENCODER), "cls_tokens 0"),
        (lambda: TokenDecoderConfig("fusion", STACK), "token decoder kind 'fusion' is unknown"),
        (lambda: TokenDecoderConfig("prefix", STACK), "prefix_length 0"),
        (lambda: TokenDecoderConfig("summation", STACK, 2), "prefix_length 2"),
        (lambda: BlockConfig(9, 64, 4, EmbedderConfig("lookup", 9), STACK, PREFIX), "36 wide"),
        (lambda: BlockConfig(9, 64, 0, EmbedderConfig("lookup", 9), STACK, PREFIX), "block_length 0"),
        (lambda: BlockConfig(9, 2048, 600, EmbedderConfig("roberta", 24, ENCODER), STACK, PREFIX), "512 tokens"),
    ],
)
def test_parts_that_do_not_go_together(part: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        part()
