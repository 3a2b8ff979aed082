"""Architectures as data: exact round trips, and what does not go together is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.base.files import read_json
from pipeline.models.config import (
    BlockConfig,
    ClsConfig,
    LookupConfig,
    PrefixConfig,
    RobertaConfig,
    StackConfig,
    from_dict,
    to_dict,
)
from tests.models.variants import ENCODER, PREFIX, STACK, VARIANTS, block

GOLDEN = Path(__file__).parents[1] / "assets/golden_configs.json"


@pytest.mark.parametrize("name", VARIANTS)
def test_round_trip_through_json(name: str) -> None:
    config = VARIANTS[name]
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("name", read_json(GOLDEN))
def test_the_form_is_as_it_was(name: str) -> None:
    """Fingerprints hash it, and checkpoints hold it: for what there was it never changes."""
    written = read_json(GOLDEN)[name]["config"]
    assert to_dict(VARIANTS[name]) == written
    assert from_dict(written) == VARIANTS[name]


def test_a_later_kind_or_key_is_written_where_it_is_set() -> None:
    @dataclass(frozen=True)
    class Scaled(StackConfig):
        FORM: ClassVar[Mapping[str, Any]] = {**StackConfig.FORM, "layer": "scaled"}
        layer: ClassVar[str] = "scaled"
        scale: float = 1.0

    sizes, plain = (2, 32, 4, 4, 48), StackConfig(2, 32, 4, 4, 48).to_dict()
    assert Scaled(*sizes).to_dict() == plain | {"layer": "scaled"}
    assert Scaled(*sizes, scale=0.5).to_dict() == plain | {"layer": "scaled", "scale": 0.5}


@pytest.mark.parametrize(
    ("name", "part", "changed", "message"),
    [
        ("lookup_prefix", "embedder", {"cls_tokens": 3}, "'cls_tokens': 3 does not go with"),
        ("lookup_prefix", "embedder", {"kind": "bag"}, "embedder kind 'bag' is unknown"),
        ("lookup_prefix", "embedder", {"kind": 3}, "embedder kind 3 is unknown"),
        ("roberta_prefix", "embedder", {"width": 25}, "'width': 25 does not go with"),
        ("roberta_prefix", "embedder", {"stack": None}, "None is no mapping"),
        ("megabyte", "token_decoder", {"prefix_length": 2}, "'prefix_length': 2 does not go with"),
        ("megabyte", "token_decoder", {"kind": "fusion"}, "token decoder kind 'fusion' is unknown"),
        ("lookup_prefix", "token_decoder", {"prefix_length": 0}, "prefix_length 0 must be a whole number"),
        ("lookup_prefix", "token_decoder", {"prefix_length": "2"}, "'2' is no int"),
        ("lookup_prefix", "block_decoder", {"layer": "mamba"}, "layer 'mamba' is unknown"),
        ("vanilla", "stack", {"window": 0}, "window 0 must be"),
        ("vanilla", "stack", {"layers": True}, "True is no int"),
    ],
)
def test_parts_of_another_form_are_refused(name: str, part: str, changed: dict[str, Any], message: str) -> None:
    values = to_dict(VARIANTS[name])
    with pytest.raises(ValueError, match=message):
        from_dict(values | {part: values[part] | changed})


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
        (lambda: LookupConfig(0), "width 0 must be"),
        (lambda: ClsConfig(ENCODER, cls_tokens=0), "cls_tokens 0"),
        (lambda: PrefixConfig(STACK, 2, contexts=0), "contexts 0 must be a whole number of at least 1"),
        (
            lambda: block(4, LookupConfig(8), PrefixConfig(STACK, 2, contexts=16)),
            "contexts 16 is more than the 15 blocks",
        ),
        (lambda: LookupConfig(8, convolution=1), "convolution 1 sees no token before; give at least 2"),
        (lambda: PrefixConfig(STACK, 0), "prefix_length 0"),
        (lambda: PrefixConfig(STACK, 2, local=-1), "local -1 must be a whole number of at least 0"),
        (
            lambda: PrefixConfig(STACK, 2, mix=True),
            "adds the last token_decoder.local tokens to the prefix; give local",
        ),
        (lambda: PrefixConfig(STACK, 2, local=1, carry=True), "local 1 does not go with carry"),
        (lambda: PrefixConfig(STACK, 2, carry=True, memory=8), "memory 8 does not go with carry"),
        (lambda: PrefixConfig(STACK, 2, memory=8, memory_layers=2), "memory_layers 2 is more than the 1 layers"),
        (lambda: PrefixConfig(STACK, 2, memory_layers=2), "memory_layers look at memories; give memory too"),
        (lambda: BlockConfig(9, 64, 4, LookupConfig(9), STACK, PREFIX), "36 wide"),
        (lambda: BlockConfig(9, 64, 0, LookupConfig(9), STACK, PREFIX), "block_length 0"),
        (lambda: BlockConfig(9, 2048, 600, RobertaConfig(ENCODER), STACK, PREFIX), "512 tokens"),
    ],
)
def test_parts_that_do_not_go_together(part: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        part()
