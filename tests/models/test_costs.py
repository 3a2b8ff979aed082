"""Costs from the configuration equal what the built model really has and does."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models import build, costs
from pipeline.models.config import (
    BlockConfig,
    ClsConfig,
    CrossAttentionConfig,
    EncoderConfig,
    LookupConfig,
    PrefixConfig,
    StackConfig,
    T5Config,
    VanillaConfig,
)
from tests.models.test_models import random_tokens
from tests.models.variants import PREFIX, STACK, VARIANTS, VOCABULARY, block


def group(name: str) -> str:
    if name.endswith(("encoder.embedding.weight", "embedder.embedding.weight", "token_decoder.embedding.weight")):
        return "embedding"
    part = name.split(".")[0]
    if "head" in name.split("."):
        return "head"
    return {"embedding": "embedding", "stack": "token_decoder", "overlap": "embedder"}.get(part, part)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_by_group(name: str) -> None:
    model = build(VARIANTS[name], device="meta")
    counted = dict.fromkeys(costs.GROUPS, 0)
    for parameter, value in model.named_parameters():
        counted[group(parameter)] += value.numel()
    assert costs.parameters(model.config) == counted
    assert costs.total_parameters(model.config) == sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("length", [64, 41, 150])
def test_training_flops_equal_the_counter(name: str, length: int) -> None:
    model, tokens = build(VARIANTS[name]), random_tokens(3, length)
    with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused kernels are not counted
        with FlopCounterMode(display=False) as forward:
            loss = model(tokens).float().logsumexp(-1).mean()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    expected = 3 * model.config.forward_flops(length)
    assert forward.get_total_flops() == pytest.approx(expected, rel=1e-6)
    assert backward.get_total_flops() == pytest.approx(2 * expected, rel=0.01)


def test_training_flops_are_a_tokens_share_of_the_context() -> None:
    config = VARIANTS["lookup_prefix"]
    assert costs.training_flops_per_token(config) * 64 == pytest.approx(3 * config.forward_flops(64))


def paper(layers: int, width: int, **changed: Any) -> tuple[VanillaConfig, BlockConfig]:
    """The paper's vanilla and block transformer (block length 4, prefix 2) of a width; layers of one decoder."""
    heads = width // (32 if width <= 256 else 64 if width <= 1536 else 128)
    stack = StackConfig(layers, width, heads, heads, 4 * width)
    double = StackConfig(2 * layers, width, heads, heads, 4 * width)
    decoder = PrefixConfig(stack, 2)
    block = BlockConfig(50304, 2048, 4, LookupConfig(width // 4), stack, decoder)
    return VanillaConfig(50304, 2048, double), block


@pytest.mark.parametrize(
    ("layers", "width", "vanilla", "block", "block_body"),
    [
        (3, 256, 30.5, 46.7 - 12.9, 4.9),
        (3, 512, 70.4, 103.1 - 25.8, 19.4),
        (6, 768, 162.3, 211.8 - 38.6, 86.2),
        (12, 1024, 405.3, 471.8 - 51.5, 304.4),
        (8, 2048, None, 1149.0 - 103.0, 814.1),
        (12, 2048, None, 1551.8 - 103.0, 1217.0),
    ],
)
def test_the_papers_parameter_counts(
    layers: int, width: int, vanilla: float | None, block: float, block_body: float
) -> None:
    """Millions, as counted in the published code; without the block decoder's unused vocabulary table."""
    plain, config = paper(layers, width)
    assert costs.total_parameters(config) / 1e6 == pytest.approx(block, abs=0.1)
    assert costs.non_embedding_parameters(config) / 1e6 == pytest.approx(block_body, abs=0.05)
    if vanilla is not None:
        assert costs.total_parameters(plain) / 1e6 == pytest.approx(vanilla, abs=0.06)


def test_the_papers_ablations() -> None:
    """Millions, as counted in the published code."""
    _, config = paper(6, 768)
    encoder = EncoderConfig(3, 256, 8, 8, 1024)
    t5 = CrossAttentionConfig(T5Config(6, 768, 12, 12, 3072))
    cross = BlockConfig(50304, 2048, 4, ClsConfig(encoder, cls_tokens=3), config.block_decoder, t5)
    counted = costs.parameters(cross)
    assert (counted["block_decoder"] + counted["token_decoder"]) / 1e6 == pytest.approx(101.5, abs=0.05)
    assert costs.total_parameters(cross) / 1e6 == pytest.approx(194.8 - 38.6, abs=0.1)


def test_prefill_and_decode_flops_add_up_to_a_causal_forward() -> None:
    """Decoding tokens one by one computes what a prefill of them computes, and for each but the last more.

    That is the head, and the last layer but for its keys and values: nobody reads what it gives within a prompt.
    """
    pattern = VanillaConfig(VOCABULARY, 64, StackConfig(3, 32, 4, 2, 48, window=5, global_every=3))
    for config in (*(VARIANTS[name] for name in ("vanilla", "vanilla_window", "vanilla_multi_query")), pattern):
        assert isinstance(config, VanillaConfig)
        stack, window = config.stack, config.stack.windows[-1] or 32
        unread = 2 * stack.width * (2 * stack.query_width + 2 * stack.feed_forward)
        attended = 4 * stack.query_width * sum(min(position, window) for position in range(1, 32))
        head = 2 * config.stack.width * VOCABULARY
        steps = sum(config.decode_flops(position) for position in range(1, 33))
        assert config.prefill_flops(32) == pytest.approx(steps - 31 * (head + unread) - attended)


@pytest.mark.parametrize(
    ("keys", "positions", "read", "carried"),
    [
        ({}, 5, 32, 0),
        ({"local": 4}, 9, 32, 0),
        ({"local": 4, "mix": True}, 5, 32 + 4 * 32, 0),
        ({"contexts": 3, "local": 1}, 10, 32, 0),
        ({"carry": True}, 6, 32, 3),
    ],
    ids=["plain", "local", "mixed", "contexts", "carried"],
)
def test_decode_flops_of_a_block_transformer_by_hand(
    keys: dict[str, Any], positions: int, read: int, carried: int
) -> None:
    """2 + 2 layers of width 32, feed-forward 48, block 4, prefix 2; ``read`` numbers make the slots.

    Nobody reads more of the prefix's positions but the last, all but 4, than the last layer's keys and values.
    """
    config = block(4, LookupConfig(8), PrefixConfig(STACK, 2, **keys))
    layer = 2 * (32 * 96 + 32 * 32 + 2 * 32 * 48)
    block_step = 2 * (layer + 4 * 32 * 5)
    pairs = positions * (positions + 1) // 2 + positions * carried
    ahead = positions - 4
    unread = ahead * 2 * (2 * 32 * 32 + 2 * 32 * 48) + 4 * 32 * (ahead * (ahead + 1) // 2 + ahead * carried)
    token_decoder = 2 * read * 64 + 2 * (positions * layer + 4 * 32 * pairs) - unread
    assert config.decode_flops(20) == pytest.approx((block_step + token_decoder) / 4 + 2 * 32 * VOCABULARY)
    assert config.cached(100) == 25 * 2 * 2 * 32 + (positions + carried) * 2 * 2 * 32


def test_memories_cost_their_making_once_per_block_and_their_reading_once_per_token_by_hand() -> None:
    """16 numbers per block, of five tokens of width 32, for one layer; four heads look at those of 25 blocks."""
    plain, memory = block(4, LookupConfig(8), PREFIX), block(4, LookupConfig(8), PrefixConfig(STACK, 2, memory=16))
    made, looked = 5 * 32 * 16, 2 * 32 * 4 * 16
    assert costs.total_parameters(memory) - costs.total_parameters(plain) == made + looked + 16 + 2 * 32
    more = memory.decode_flops(100) - plain.decode_flops(100)
    assert more == pytest.approx(2 * made / 4 + 2 * looked + 4 * 4 * 16 * 25)
    assert memory.decode_parameters() - plain.decode_parameters() == pytest.approx(made / 4 + looked + 16 + 2 * 32)
    assert memory.cached(100) - plain.cached(100) == 25 * 16
    assert memory.cached_read(100) - plain.cached_read(100) == 25 * 16
    assert costs.layer_matrices(memory) - costs.layer_matrices(plain) == made + looked


def test_a_window_over_blocks_is_read_once_per_block_by_hand() -> None:
    """Of three layers the third sees all 25 blocks before a token, the others the last 6; all 25 leave memories."""
    decoder = PrefixConfig(STACK, 2, memory=16)
    windowed = block(4, LookupConfig(8), decoder, StackConfig(3, 32, 4, 2, 48, window=6, global_every=3))
    everything = block(4, LookupConfig(8), decoder, StackConfig(3, 32, 4, 2, 48))
    unseen = 2 * (25 - 6)  # by all layers together
    for position in range(100, 104):
        read = everything.cached_read(position) - windowed.cached_read(position)
        assert read == pytest.approx(2 * 16 * unseen / 4)
        products = everything.decode_flops(position) - windowed.decode_flops(position)
        assert products == pytest.approx(4 * 32 * unseen / 4)
    assert everything.cached(100) - windowed.cached(100) == 2 * 16 * unseen


@pytest.mark.parametrize(("prompt", "deep", "shallow"), [(4, 0, 0), (8, 1, 0), (12, 1, 1), (100, 1, 1)])
def test_what_is_carried_costs_blocks_of_the_prompt_by_hand(prompt: int, deep: int, shallow: int) -> None:
    """Of two layers: the last block's tokens through the first to the keys of the second; one more to the first's keys.

    Before a block's three tokens that anything follows stand one of the block before and two slots, all of which see
    three carried ones. Nobody reads more of them than keys and values.
    """
    carried = block(4, LookupConfig(8), PrefixConfig(STACK, 2, carry=True))
    plain = block(4, LookupConfig(8), PrefixConfig(STACK, 2, local=1))
    keys = 3 * 2 * 32 * 64
    layer = 3 * 2 * (32 * 96 + 32 * 32 + 2 * 32 * 48) + 4 * 32 * (4 + 5 + 6 + 3 * 3)
    first_token = (carried.token_decoder.decode_flops(4, 32) - plain.token_decoder.decode_flops(4, 32)) / 4
    more = carried.prefill_flops(prompt) - plain.prefill_flops(prompt) - first_token
    assert more == pytest.approx(deep * (2 * 32 * 64 + keys + layer + keys) + shallow * keys)


def test_what_an_embedder_reads_before_the_block_costs_its_matrices_by_hand() -> None:
    plain = block(4, LookupConfig(8), PREFIX)
    both = block(4, LookupConfig(8, overlap=True, convolution=3), PREFIX)
    entries = 2 * 32 * 32, 3 * 8 * 8  # used once per block, and once per token
    assert costs.total_parameters(both) - costs.total_parameters(plain) == sum(entries)
    assert both.decode_flops(20) - plain.decode_flops(20) == pytest.approx(2 * entries[0] / 4 + 2 * entries[1])
    assert both.decode_parameters() - plain.decode_parameters() == pytest.approx(sum(entries) / 4)
    assert both.cached(100) == plain.cached(100)


def test_kv_bytes_by_hand() -> None:
    vanilla, window, block = VARIANTS["vanilla"], VARIANTS["vanilla_window"], VARIANTS["lookup_prefix"]
    position = 2 * 2 * 32 * 2  # keys and values, 2 layers, width 32, 2 bytes
    assert costs.kv_bytes(vanilla, 100) == 100 * position
    assert costs.kv_bytes(window, 100) == 3 * position // 2
    pattern = VanillaConfig(VOCABULARY, 64, StackConfig(3, 32, 4, 4, 48, window=3, global_every=3))
    assert costs.kv_bytes(pattern, 100) == (100 + 2 * 3) * position // 2
    assert costs.kv_bytes(block, 100) == 25 * position + 5 * position
    assert costs.kv_bytes_per_token(block) == position / 4
    assert costs.kv_bytes_read(vanilla, 100) == 100 * position
    assert costs.kv_bytes_read(block, 100) == 25 * position / 4 + 3.5 * position
    assert costs.kv_bytes(VARIANTS["vanilla_multi_query"], 100) == 100 * position // 4


def test_weights_read_by_a_decode_step() -> None:
    config = VARIANTS["vanilla"]
    table = VOCABULARY * 32
    assert costs.decode_weight_bytes(config) == 2 * costs.total_parameters(config) - 2 * table
    block = VARIANTS["lookup_prefix_1_block_1"]  # every step runs everything but the input tables
    assert costs.decode_weight_bytes(block) == pytest.approx(2 * costs.total_parameters(block) - 2 * 2 * table)


@pytest.mark.parametrize("name", sorted(VARIANTS.keys() - {"vanilla_window"}))  # which keeps its mask besides
def test_activations_are_about_what_autograd_keeps(name: str) -> None:
    model, length = build(VARIANTS[name]), 256
    weights = {value.data_ptr() for value in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.is_floating_point():
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.hidden(random_tokens(1, length))
    assert hidden.requires_grad
    estimate = costs.activation_bytes_per_token(model.config, element=4) * length
    assert sum(kept.values()) == pytest.approx(estimate, rel=0.3)


def test_no_torch_is_imported() -> None:
    check = "import sys, pipeline.models.costs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
