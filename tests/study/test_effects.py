"""A key that decides nothing is refused in one line: it would make equal models under other names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.base.errors import UserError
from pipeline.models.stack_config import LlamaKeys
from pipeline.study import Study, load_study
from pipeline.study.search_checks import check_searchable

Edited = Callable[..., Study]
SEARCH = {"size": "s", "variant": "base", "setting": "decode_heavy", "space": {"block_length": [2]}, "tokens": 3000000}


@pytest.fixture
def edited(tmp_path: Path, params_text: str) -> Edited:
    """The small study with vanilla and block cells of size ``s`` (or as given) and these keys of it and its variant."""

    def write(size: str = "", variant: str = "", vanilla: str = "s", block: str = "s", **sections: Any) -> Study:
        values = yaml.safe_load(params_text)
        values["sizes"]["s"] |= yaml.safe_load(f"{{{size}}}")
        values["variants"] = {"base": yaml.safe_load(f"{{{variant}}}")}
        values["grid"]["vanilla"]["size"], values["grid"]["block"]["size"] = vanilla.split(), block.split()
        path = tmp_path / "params.yaml"
        path.write_text(json.dumps(values | sections), encoding="utf-8")
        return load_study(path)

    return write


def refusal(load: Callable[[], object]) -> str:
    """The one line that a study is refused with."""
    with pytest.raises(UserError) as error:
        load()
    text = str(error.value)
    assert "\n" not in text
    return text


KINDS = [
    (
        "embedder: {kind: lookup, width: 999}",
        "embedder.width: 999 is wrong; a lookup embedder has no such key (it has ",
    ),
    ("embedder: {width: 999}", "embedder.width: 999 is wrong; a lookup embedder"),
    ("embedder: {kind: lookup, layers: 7}", "embedder.layers: 7 is wrong; a lookup embedder"),
    ("embedder: {heads: 3, kind: lookup}", "embedder.heads: 3 is wrong; a lookup embedder"),
    ("embedder: {kind: lookup, cls_tokens: 5}", "embedder.cls_tokens: 5 is wrong; a lookup embedder"),
    ("embedder: {kind: lookup, cls_tokens: null}", "embedder.cls_tokens: None is wrong; a lookup embedder"),
    (
        "embedder: {kind: cls, convolution: 3}",
        "embedder.convolution: 3 is wrong; a cls embedder has no such key (it has ",
    ),
    (
        "token_decoder: {kind: summation, local: 4}",
        "token_decoder.local: 4 is wrong; a summation token decoder has no ",
    ),
    ("embedder: {overlap: 1}", "embedder.overlap: 1 is wrong; it must be true or false"),
    ("embedder: {kind: projection, layers: 7}", "embedder.layers: 7 is wrong; a projection embedder"),
    ("embedder: {kind: projection, cls_tokens: 3}", "embedder.cls_tokens: 3 is wrong; a projection embedder"),
    ("embedder: {kind: roberta, cls_tokens: 9}", "embedder.cls_tokens: 9 is wrong; a roberta embedder"),
    (
        "token_decoder: {kind: summation, prefix_length: 6}",
        "token_decoder.prefix_length: 6 is wrong; a summation token d",
    ),
    (
        "token_decoder: {prefix_length: 2, kind: cross_attention}",
        "token_decoder.prefix_length: 2 is wrong; a cross_atte",
    ),
    ("token_decoder: {prefix: 2}", "token_decoder.prefix: unknown key; did you mean 'prefix_length'?"),
    ("embedder: {kind: bag}", "embedder.kind: 'bag' is wrong; it is one of lookup, projection, roberta, cls"),
    ("embedder: {kind: 3}", "embedder.kind: 3 is wrong; it must be text"),
    ("embedder: {kind: [cls]}", "embedder.kind: ['cls'] is wrong; it must be text"),
    ("embedder: lookup", "embedder: 'lookup' is wrong; it must be a mapping"),
    ("embedder: null", "embedder: None is wrong; it must be a mapping"),
]


@pytest.mark.parametrize(("variant", "message"), KINDS)
def test_a_key_that_the_kind_lacks(edited: Edited, variant: str, message: str) -> None:
    assert f": variants.base.{message}" in refusal(lambda: edited(variant=variant))


def test_a_layer_of_no_kind(edited: Edited) -> None:
    assert edited("layer: {kind: llama}").sizes["s"].layer == LlamaKeys()
    assert "sizes.s.layer.kind: 'gated' is wrong; it is one of neox, l" in refusal(
        lambda: edited("layer: {kind: gated}")
    )
    assert "sizes.s.layer.head_dim: 8 is wrong; a neox layer has no" in refusal(lambda: edited("layer: {head_dim: 8}"))
    assert "sizes.s.layer: 'llama' is wrong; it must be a mapping" in refusal(lambda: edited("layer: llama"))


def test_a_sizes_layer_that_every_variant_replaces(edited: Edited) -> None:
    neox = "layer: {kind: neox}"
    text = refusal(lambda: edited("layer: {kind: llama}", neox, vanilla=""))
    assert ": sizes.s.layer.kind: 'llama' is wrong; no cell of this size reads it (block-s-2-base-0, " in text
    edited("layer: {kind: llama}", neox)  # which the vanilla model reads


BOTH = "block_decoder: {layers: 2}, token_decoder: {layers: 3}"
ALLOCATIONS = [
    ("", f"allocation: [5, 1], {BOTH}"),
    ("block_decoder: {layers: 2}", "allocation: [5, 1], token_decoder: {layers: 3}"),
    (BOTH, "allocation: [5, 1]"),
]


@pytest.mark.parametrize(("size", "variant"), ALLOCATIONS)
def test_an_allocation_beside_the_layers_of_both_decoders(edited: Edited, size: str, variant: str) -> None:
    text = refusal(lambda: edited(size, variant))
    assert ": variants.base.allocation: [5, 1] is wrong; block_decoder.layers and token_decoder.layers say" in text


def test_an_allocation_that_some_cell_or_some_decoder_needs(edited: Edited) -> None:
    edited(BOTH, "allocation: [5, 1]", block="s m")
    edited("", "allocation: [5, 1], token_decoder: {layers: 3}")
    edited("", f"allocation: [1, 1], {BOTH}")


SIZES = [
    ("token_decoder: {width: 64}", "token_decoder: {width: 32}", "token_decoder.width: 64"),
    ("block_decoder: {layers: 3}", "block_decoder: {layers: 1}", "block_decoder.layers: 3"),
    ("block_decoder: {feed_forward: 99}", "block_decoder: {feed_forward: 98}", "block_decoder.feed_forward: 99"),
    ("token_decoder: {heads: 2}", "token_decoder: {heads: 4}", "token_decoder.heads: 2"),
    ("token_decoder: {kv_heads: 2}", "token_decoder: {kv_heads: 1}", "token_decoder.kv_heads: 2"),
]


@pytest.mark.parametrize(("size", "variant", "key"), SIZES)
def test_a_sizes_key_that_every_variant_overrides(edited: Edited, size: str, variant: str, key: str) -> None:
    text = refusal(lambda: edited(size, variant))
    assert f": sizes.s.{key} is wrong; no cell of this size reads it (block-s-2-base-0, block-s-4-base-0, " in text
    edited(size, variant, block="m")  # nothing is built of it


def test_a_sizes_key_that_a_search_starts_from(edited: Edited) -> None:
    variant, size = "token_decoder: {width: 32}", "token_decoder: {width: 64}"
    assert "sizes.s.token_decoder.width: 64" in refusal(lambda: edited(size, variant, search=SEARCH))
    both = {"base": {"token_decoder": {"width": 32}}, "start": {}}
    edited(size, search=SEARCH | {"variant": "start"}, variants=both)


UNREAD = [
    ("window: 8", "", "window: 8"),
    ("heads: 4", "block_decoder: {width: 64}, token_decoder: {width: 64}", "heads: 4"),
    ("kv_heads: 2", "block_decoder: {kv_heads: 1}, token_decoder: {kv_heads: 1}", "kv_heads: 2"),
    ("feed_forward: 96", "block_decoder: {width: 64}, token_decoder: {feed_forward: 64}", "feed_forward: 96"),
]


@pytest.mark.parametrize(("size", "variant", "key"), UNREAD)
def test_a_sizes_key_that_only_vanilla_cells_would_read(edited: Edited, size: str, variant: str, key: str) -> None:
    assert f": sizes.s.{key} is wrong; no cell" in refusal(lambda: edited(size, variant, vanilla="m"))
    edited(size, variant)


@pytest.mark.parametrize(
    ("variant", "space", "message"),
    [
        ("", {"embedder_width": [8]}, "search.space.embedder_width: [8] is wrong; it has no effect with lookup"),
        (
            "token_decoder: {kind: summation}",
            {"prefix_length": [2]},
            "prefix_length: [2] is wrong; it has no effect wi",
        ),
        (
            "token_decoder: {kind: cross_attention}",
            {"prefix_length": [2]},
            "it has no effect with cross_attention (vari",
        ),
    ],
)
def test_a_searchs_key_that_the_kind_lacks(edited: Edited, variant: str, space: dict[str, Any], message: str) -> None:
    search = SEARCH | {"space": {"block_length": [2]} | space}
    study = edited(variant=variant, search=search)
    assert message in refusal(lambda: check_searchable(study))


@pytest.mark.parametrize("gone", ["size", "variant", "setting"])
def test_a_search_whose_parts_are_gone_stops_only_those_who_search(edited: Edited, gone: str) -> None:
    study = edited(search=SEARCH | {gone: "gone"})
    assert refusal(lambda: check_searchable(study)).startswith(f"search.{gone}: 'gone' is wrong; it is one of ")
    check_searchable(edited(search=SEARCH))


UPTRAINED = {"source": ["vanilla-s-0"], "block_length": [4], "variant": ["base"]}


@pytest.mark.parametrize(
    ("size", "variant", "message"),
    [
        ("", "init: {}", "take embedder.kind: projection with that width"),
        ("", "init: {}, embedder: {kind: cls}", "embedder.kind: uptraining needs projection, not cls"),
        ("", "init: {}, embedder: {kind: projection, width: 64}", "an embedding of the source's width 128, not 64"),
        ("window: 8", "init: {}, embedder: {kind: projection}", "block_decoder.window: None does not fit"),
        ("", "init: {method: skip}, embedder: {kind: projection}, block_decoder: {layers: 3}", "2 layers in each"),
    ],
)
def test_an_uptrained_cell_that_cannot_start_is_refused_before_anything_is_trained(
    edited: Edited, params_text: str, size: str, variant: str, message: str
) -> None:
    grid = {"vanilla": {"size": ["s"]}, "block": {}, "uptrained": UPTRAINED}
    text = refusal(lambda: edited(size, variant, grid=grid))
    assert ": cell block-vanilla-s-0-4-base-0 cannot start from vanilla-s-0: " in text
    assert message in text
