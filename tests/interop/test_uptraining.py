"""A block transformer made of a vanilla one starts from the weights that the published code starts from."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from pipeline.base.errors import UserError
from pipeline.interop.published import from_published, to_published
from pipeline.interop.uptraining import uptrain_from
from pipeline.models import LanguageModel, build
from pipeline.models.config import (
    BlockConfig,
    CrossAttentionConfig,
    LlamaConfig,
    LookupConfig,
    PrefixConfig,
    ProjectionConfig,
    RobertaConfig,
    StackConfig,
    T5Config,
    VanillaConfig,
)
from pipeline.models.uptraining import check_uptraining
from tests.fixture import DEAD, FOLDER
from tests.models.variants import ENCODER

STACK = StackConfig(layers=4, width=32, heads=4, kv_heads=4, feed_forward=128)

STACK_2 = dataclasses.replace(STACK, layers=2)


def target(block_layers: int, token_layers: int, slots: int = 2, **changed: Any) -> BlockConfig:
    block = dataclasses.replace(STACK, layers=block_layers)
    token = PrefixConfig(dataclasses.replace(STACK, layers=token_layers), slots)
    return dataclasses.replace(BlockConfig(61, 64, 4, ProjectionConfig(32), block, token), **changed)


def vanilla() -> LanguageModel:
    model = build(VanillaConfig(61, 64, STACK))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return model


def test_partition_equals_the_published_start() -> None:
    from safetensors.torch import load_file

    tensors = load_file(FOLDER / "uptrain_partition.safetensors")
    weights = {name.removeprefix("vanilla/"): value for name, value in tensors.items() if name.startswith("vanilla/")}
    values = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    source = from_published({"model": "gpt-neo-x", "model_config": values | {"intermediate_size": 128}}, weights)
    model = build(target(2, 2))
    uptrain_from(model, source, "partition")
    _, found = to_published(model)
    expected = {name.removeprefix("block/"): value for name, value in tensors.items() if name.startswith("block/")}
    assert found.keys() == expected.keys() - {DEAD}
    untouched = {f"block_decoder.gpt_neox.final_layer_norm.{kind}" for kind in ("weight", "bias")}
    for name in found.keys() - untouched:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize(
    ("method", "block_layers", "token_layers"),
    [("skip", [0, 2], [0, 2]), ("duplicate", [0, 1, 2, 3], [0, 1, 2, 3]), ("partition", [0], [1, 2, 3])],
)
def test_where_the_layers_go(method: str, block_layers: list[int], token_layers: list[int]) -> None:
    source, model = vanilla(), build(target(len(block_layers), len(token_layers), slots=3))
    uptrain_from(model, source, method)
    given, found = source.state_dict(), model.state_dict()
    for stack, layers in (("block_decoder", block_layers), ("token_decoder.stack", token_layers)):
        for index, layer in enumerate(layers):
            for name in (key for key in given if key.startswith(f"stack.layers.{layer}.")):
                own = name.replace(f"stack.layers.{layer}.", f"{stack}.layers.{index}.")
                assert torch.equal(found[own], given[name]), own
    assert torch.equal(found["block_decoder.norm.weight"], torch.ones(32))


def test_the_start_repeats_the_context_and_averages_the_block() -> None:
    source, model = vanilla(), build(target(2, 2, slots=3))
    uptrain_from(model, source, "partition")
    context = torch.randn(5, 32)
    torch.testing.assert_close(model.token_decoder.expand(context), context[:, None].expand(5, 3, 32))
    blocks = torch.randint(0, 61, (2, 3, 4))
    embedded = source.get_parameter("embedding.weight")[blocks].mean(2)
    torch.testing.assert_close(model.embedder(blocks), embedded)


def test_blocks_of_one_token_start_as_the_vanilla_model_does() -> None:
    """With block length 1 the lower layers see what they saw in the vanilla model, with lookup and with projection."""
    source, tokens = vanilla(), torch.randint(0, 61, (2, 9))
    lower = StackConfig(2, 32, 4, 4, 128)
    cut = build(VanillaConfig(61, 64, lower))
    state = {name: value for name, value in source.state_dict().items() if name in cut.state_dict()}
    cut.load_state_dict(state | {"stack.norm.weight": torch.ones(32), "stack.norm.bias": torch.zeros(32)})
    for embedder in (LookupConfig(32), ProjectionConfig(32)):
        model = build(target(2, 2, block_length=1, embedder=embedder))
        uptrain_from(model, source, "partition")
        contexts = model.contexts(tokens[:, :-1, None])
        torch.testing.assert_close(contexts, cut.hidden(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        target(2, 2, token_decoder=PrefixConfig(STACK_2, 2, local=6, mix=True)),
        target(2, 2, token_decoder=PrefixConfig(STACK_2, 2, memory=16)),
        target(2, 2, embedder=ProjectionConfig(32, overlap=True, convolution=3)),
    ],
)
def test_what_a_further_matrix_adds_starts_as_nothing(changed: BlockConfig) -> None:
    source, tokens = vanilla(), torch.randint(61, (2, 24))
    plain, model = build(target(2, 2)), build(changed)
    for started in (plain, model):
        uptrain_from(started, source, "partition")
    torch.testing.assert_close(model(tokens), plain(tokens))


LLAMA = LlamaConfig(2, 32, 4, 2, 40, head_dim=12, query_key_norm=True)


def llama(block_layers: int, token_layers: int, tied: bool) -> BlockConfig:
    lower, upper = (dataclasses.replace(LLAMA, layers=layers) for layers in (block_layers, token_layers))
    return target(1, 1, block_decoder=lower, token_decoder=PrefixConfig(upper, 1, tied=tied))


@pytest.mark.parametrize("tied", [False, True])
def test_from_a_llama_whose_tables_are_tied(tied: bool) -> None:
    """With block length 1 the block decoder sees what the vanilla model saw, before the final norm's scale."""
    source = build(VanillaConfig(61, 64, LLAMA, tied=True))
    with torch.no_grad():
        for number, parameter in enumerate(source.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.2)
    model = build(dataclasses.replace(llama(2, 2, tied), block_length=1))
    uptrain_from(model, source, "duplicate")
    tokens = torch.randint(61, (2, 9))
    last = source.state_dict()["stack.norm.weight"]
    torch.testing.assert_close(model.contexts(tokens[:, :-1, None]) * last, source.hidden(tokens))
    assert torch.equal(model.head_weight, source.head_weight)


@pytest.mark.parametrize(
    ("source", "config", "message"),
    [
        (VanillaConfig(61, 64, STACK_2), llama(1, 1, False), "block_decoder.layer: 'llama' does not fit"),
        (VanillaConfig(61, 64, LLAMA), target(1, 1), "block_decoder.layer: 'neox' does not fit"),
        (VanillaConfig(61, 64, LLAMA), llama(1, 1, True), "tied: True does not fit"),
        (
            VanillaConfig(61, 64, dataclasses.replace(LLAMA, rotary_base=500.0)),
            llama(1, 1, False),
            r"rotary_base: 10000.0 does not fit the vanilla model to uptrain, which has 500.0",
        ),
        (
            VanillaConfig(61, 64, dataclasses.replace(LLAMA, query_key_norm=False)),
            llama(1, 1, False),
            "query_key_norm: True does not fit",
        ),
    ],
)
def test_layers_of_another_kind_are_refused(source: VanillaConfig, config: BlockConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_uptraining(config, source, "partition")


@pytest.mark.parametrize(
    ("config", "method", "message"),
    [
        (target(2, 2), "halves", "method 'halves' is unknown"),
        (target(2, 1), "partition", r"4 layers in both decoders together, not 2 \+ 1"),
        (target(4, 4), "skip", "2 layers in each decoder, not 4 and 4"),
        (target(2, 2), "duplicate", "4 layers in each decoder, not 2 and 2"),
        (target(2, 2, vocabulary=62), "partition", "vocabulary: 62 does not fit"),
        (target(2, 2, block_decoder=StackConfig(2, 32, 8, 8, 128)), "partition", "block_decoder.heads: 8 does not fit"),
        (target(2, 2, block_decoder=StackConfig(2, 32, 4, 2, 128)), "partition", "block_decoder.kv_heads: 2"),
        (target(2, 2, block_decoder=StackConfig(2, 64, 4, 4, 128)), "partition", "block_decoder.width: 64"),
        (target(2, 2, embedder=LookupConfig(8)), "partition", "the source's width 32, not 8"),
        (target(2, 2, embedder=RobertaConfig(ENCODER)), "partition", "needs projection, not roberta"),
        (
            target(2, 2, token_decoder=CrossAttentionConfig(T5Config(2, 32, 4, 4, 128))),
            "partition",
            "not cross_attention",
        ),
    ],
)
def test_what_does_not_fit_is_refused(config: BlockConfig, method: str, message: str) -> None:
    model = build(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        uptrain_from(model, vanilla(), method)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
