"""Initial weights: reproducible, and distributed as in the published code."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipeline.models import build, initialise
from pipeline.models.config import (
    BlockConfig,
    CrossAttentionConfig,
    EncoderConfig,
    LookupConfig,
    PrefixConfig,
    RobertaConfig,
    StackConfig,
    T5Config,
)
from tests.models.variants import VARIANTS

ZERO = ("overlap.", "embedder.convolution.", *(f"token_decoder.memory_attention.{i}.output." for i in range(2)))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_seed_decides_every_weight(name: str) -> None:
    first, second, other = build(VARIANTS[name]), build(VARIANTS[name]), build(VARIANTS[name])
    state = torch.random.get_rng_state()
    initialise(first, 3)
    initialise(second, 3)
    initialise(other, 4)
    assert torch.equal(torch.random.get_rng_state(), state)
    for (parameter, one), two, three in zip(
        first.named_parameters(), second.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(one, two), parameter
        if parameter.startswith(ZERO):
            assert not one.any(), parameter
        elif one.ndim > 1:
            assert not torch.equal(one, three), parameter


def test_nothing_of_the_old_weights_is_left() -> None:
    model = build(VARIANTS["cls_cross_attention"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    initialise(model, 0)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_deviations() -> None:
    stack = StackConfig(1, 256, 4, 2, 512)
    encoder = RobertaConfig(EncoderConfig(1, 128, 4, 2, 512), padding_token=1)
    prefix = build(BlockConfig(999, 64, 4, encoder, stack, PrefixConfig(stack, 2, memory=64))).state_dict()
    t5 = build(BlockConfig(999, 64, 4, encoder, stack, CrossAttentionConfig(T5Config(1, 256, 4, 2, 512)))).state_dict()
    expected = {
        "embedder.encoder.embedding.weight": 0.02,
        "embedder.projection.weight": 512**-0.5,
        "block_decoder.layers.0.query_key_value.weight": 0.02,
        "token_decoder.expansion.weight": 256**-0.5,
        "token_decoder.head.weight": 0.02,
        "token_decoder.memory_attention.0.compress.weight": (5 * 256) ** -0.5,
    }
    for name, deviation in expected.items():
        assert prefix[name].std().item() == pytest.approx(deviation, rel=0.02), name
    layer = "token_decoder.decoder.layers.0"
    expected = {
        "token_decoder.embedding.weight": 1.0,
        f"{layer}.cross_query.weight": (256 * 64) ** -0.5,
        f"{layer}.cross_keys_values.weight": 256**-0.5,
        f"{layer}.feed_forward_out.weight": 512**-0.5,
    }
    for name, deviation in expected.items():
        assert t5[name].std().item() == pytest.approx(deviation, rel=0.02), name
    query, key_value = t5[f"{layer}.query_key_value.weight"].split([256, 256])
    assert query.std().item() == pytest.approx((256 * 64) ** -0.5, rel=0.02)
    assert key_value.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert not prefix["embedder.encoder.embedding.weight"][1].any()
    assert not prefix["block_decoder.layers.0.query_key_value.bias"].any()
    assert (prefix["block_decoder.norm.weight"] == 1).all()


def test_a_vanilla_model_needs_no_module_of_the_block_transformer() -> None:
    """What decides its weights can then be told by what it imports."""
    code = """
import sys
from pipeline.models import build
from pipeline.models.family_config import VanillaConfig
from pipeline.models.stack_config import StackConfig
build(VanillaConfig(9, 8, StackConfig(1, 8, 1, 1, 8)))
print(*(name for name in sys.modules if name.startswith("pipeline.models.")))
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "pipeline.models.layers" in loaded
    parts = ("block", "embedder", "token_decoder", "memory", "t5", "roberta")
    assert [name for name in loaded if name.removeprefix("pipeline.models.").startswith(parts)] == []


def test_outputs_scaled_by_depth_and_another_deviation() -> None:
    stack = StackConfig(8, 256, 4, 4, 512)
    model = build(BlockConfig(999, 64, 4, LookupConfig(64), stack, PrefixConfig(stack, 2)))
    initialise(model, 0, std=0.01, depth_scaled=True)
    weights = model.state_dict()
    for part in ("block_decoder", "token_decoder.stack"):
        for name, deviation in (("query_key_value", 0.01), ("attention_output", 0.0025), ("feed_forward_out", 0.0025)):
            assert weights[f"{part}.layers.3.{name}.weight"].std().item() == pytest.approx(deviation, rel=0.03)
    assert weights["token_decoder.expansion.weight"].std().item() == pytest.approx(256**-0.5, rel=0.02)


def test_meta_models_have_no_weights() -> None:
    assert all(parameter.is_meta for parameter in build(VARIANTS["vanilla"], device="meta").parameters())
