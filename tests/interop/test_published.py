"""Models of the published code: equal in every number it gave, and equal tensors out again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save_file
from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.interop.names import require_neox
from pipeline.interop.published import entries, from_published, load_published, to_published
from pipeline.interop.published_config import config_from_published, config_to_published, trained_with_padding
from pipeline.models import LanguageModel, attention, layers
from pipeline.models.config import BlockConfig, LookupConfig, PrefixConfig, StackConfig, VanillaConfig
from tests.fixture import DEAD, Fixture, read
from tests.models.test_models import lively
from tests.models.variants import PREFIX, STACK, block

BLOCK = 4
UNPUBLISHED = ["vanilla_window", "vanilla_multi_query", "megabyte", "cross_attention_grouped", "roberta_prefix"]


def imported(fixture: Fixture) -> LanguageModel:
    return from_published(fixture.config, fixture.state_dict)


def losses(logits: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
    """Loss of every target token [B, T - first], 0 at padding."""
    loss = F.cross_entropy(logits.transpose(1, 2), tokens[:, BLOCK:], reduction="none")
    return loss * valid[:, BLOCK:]


def gradients(model: LanguageModel) -> dict[str, Tensor]:
    """The model's gradients under the published names."""
    parameters = dict(model.named_parameters())
    found = {}
    for entry in entries(model.config):
        gradient = parameters[entry.ours].grad
        assert gradient is not None
        found |= dict(zip(entry.theirs, entry.write(gradient), strict=True))
    return found


def eager_mask(length: int, valid: Tensor | None, window: int | None, device: torch.device) -> attention.Mask:
    """Padding as the published code's eager attention treats it: padded queries attend like any other."""
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return attention.Mask(allowed=(causal if valid is None else causal & valid[:, None, None, :]))


@pytest.mark.parametrize("name", ["prefix", "roberta_cls_cross"])
def test_logits_and_loss_without_padding(name: str) -> None:
    fixture = read(name)
    tokens = fixture["clean/input_ids"].flatten(1)
    logits = imported(fixture)(tokens)
    torch.testing.assert_close(logits, fixture["clean/logits"].flatten(1, 2), rtol=0, atol=1e-5)
    loss = losses(logits, tokens, torch.ones_like(tokens)).mean()
    torch.testing.assert_close(loss, fixture["clean/loss"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["prefix", "roberta_cls_cross"])
def test_stages_of_the_model(name: str) -> None:
    fixture = read(name)
    model = imported(fixture)
    blocks, valid = fixture["inputs/input_ids"], fixture["inputs/attention_mask"].bool()
    embeddings = model.embedder(blocks, valid)
    torch.testing.assert_close(embeddings.flatten(0, 1), fixture["embedder_out"][:, 0], rtol=0, atol=1e-5)
    kept = valid.any(-1)
    contexts = model.contexts(blocks, valid)
    torch.testing.assert_close(contexts[kept], fixture["block_hidden"][kept], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["prefix", "roberta_cls_cross"])
def test_everything_with_padding_in_eager_attention(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture was made with eager attention, which differs from ours at padded queries; with its mask all agree."""
    monkeypatch.setattr(layers, "causal_mask", eager_mask)
    fixture = read(name)
    model = imported(fixture)
    tokens, valid = fixture["inputs/input_ids"].flatten(1), fixture["inputs/attention_mask"].bool().flatten(1)
    logits, kept = model(tokens, valid), valid[:, BLOCK:]
    torch.testing.assert_close(logits[kept], fixture["logits_noskip"].flatten(1, 2)[kept], rtol=0, atol=1e-5)
    by_token = losses(logits, tokens, valid)
    by_position = by_token.reshape(-1, BLOCK).sum(0) / kept.reshape(-1, BLOCK).sum(0)
    torch.testing.assert_close(by_position.double(), fixture["loss_by_position"], rtol=0, atol=1e-5)
    loss = by_token.sum() / kept.sum()
    torch.testing.assert_close(loss, fixture["loss_skip"], rtol=0, atol=1e-5)
    loss.backward()
    found = gradients(model)
    expected = fixture.under("grads")
    assert expected.keys() <= found.keys()
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=0, atol=1e-5, msg=parameter)


def test_t5_padding_needs_no_eager_mask() -> None:
    """T5 and RoBERTa never had a FlashAttention 2 form: the fixture is matched as we compute it."""
    fixture = read("roberta_cls_cross")
    tokens, valid = fixture["inputs/input_ids"].flatten(1), fixture["inputs/attention_mask"].bool().flatten(1)
    logits, kept = imported(fixture)(tokens, valid), valid[:, BLOCK:]
    torch.testing.assert_close(logits[kept], fixture["logits_noskip"].flatten(1, 2)[kept], rtol=0, atol=1e-5)


def test_padding_as_flash_attention_2() -> None:
    fixture = read("fa2_prefix", sizes="prefix")
    tokens, valid = fixture["inputs/input_ids"].flatten(1), fixture["inputs/attention_mask"].bool().flatten(1)
    logits, kept = imported(fixture)(tokens, valid), valid[:, BLOCK:]
    torch.testing.assert_close(logits[kept], fixture["fa2/logits"].flatten(1, 2)[kept], rtol=0, atol=1e-5)
    loss = losses(logits, tokens, valid).sum() / kept.sum()
    torch.testing.assert_close(loss, fixture["fa2/loss"], rtol=0, atol=1e-5)


def test_scoring_with_left_padding_equals_the_published_adapter() -> None:
    fixture = read("adapter", sizes="prefix")
    tokens = fixture["inputs"]
    padded = F.pad(tokens, (BLOCK - 1, 1))
    logits = imported(fixture)(padded, padded != 0)
    expected = fixture["block_transformer_pad_fa2"]
    given = expected.abs().sum(-1) > 0  # the adapter leaves zeros at padding
    given[3, 5] = False  # and gives a constant for the last token of a short row that starts with end of text
    assert given.sum() == 35
    torch.testing.assert_close(logits[given], expected[given], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "vanilla",
        "lookup_prefix",
        "lookup_prefix_1_block_1",
        "projection_prefix_block_3",
        "roberta_padding_prefix",
        "cls_summation",
        "cls_cross_attention",
        "cross_attention_block_20",
    ],
)
def test_out_and_in_again(name: str) -> None:
    model = lively(name)
    config, weights = to_published(model)
    again = from_published(config, weights)
    assert again.config == model.config
    for parameter, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[parameter], value)


@pytest.mark.parametrize("name", ["prefix", "roberta_cls_cross"])
def test_in_and_out_again(name: str) -> None:
    fixture = read(name)
    _, weights = to_published(imported(fixture))
    assert weights.keys() == fixture.state_dict.keys() - {DEAD}
    for parameter, value in weights.items():
        assert torch.equal(value, fixture.state_dict[parameter]), parameter


@pytest.mark.parametrize("name", UNPUBLISHED)
def test_what_the_published_code_lacks_is_not_exported(name: str) -> None:
    with pytest.raises(UserError, match="cannot be exported"):
        to_published(lively(name))


@pytest.mark.parametrize(
    ("embedder", "decoder", "message"),
    [
        (LookupConfig(8), PrefixConfig(STACK, 2, local=4), "token_decoder: local 4 cannot be exported"),
        (LookupConfig(8), PrefixConfig(STACK, 2, carry=True), "token_decoder: carry cannot be exported"),
        (LookupConfig(8), PrefixConfig(STACK, 2, memory=16), "token_decoder: memory 16 cannot be exported"),
        (LookupConfig(8), PrefixConfig(STACK, 2, contexts=3), "token_decoder: contexts 3 cannot be exported"),
        (LookupConfig(8, overlap=True), PREFIX, "embedder: overlap True cannot be exported"),
        (LookupConfig(8, convolution=3), PREFIX, "embedder: convolution 3 cannot be exported"),
    ],
)
def test_what_stands_before_a_block_is_not_exported(
    embedder: LookupConfig, decoder: PrefixConfig, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        config_to_published(block(4, embedder, decoder))


def test_layers_of_another_kind_are_not_exported() -> None:
    class Other(StackConfig):
        layer = "other"

    with pytest.raises(UserError, match="model: layers of the kind other cannot be exported"):
        require_neox(Other(2, 32, 4, 4, 48), "model")


def test_weights_keep_their_dtype_and_old_buffers_are_dropped() -> None:
    fixture = read("prefix")
    weights = {name: value.bfloat16() for name, value in fixture.state_dict.items()}
    weights["block_decoder.gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    weights["token_decoder.gpt_neox.layers.1.attention.rotary_emb.inv_freq"] = torch.ones(1)
    _, back = to_published(from_published(fixture.config, weights))
    assert {value.dtype for value in back.values()} == {torch.bfloat16}


def test_a_tied_weight_may_be_stored_once() -> None:
    fixture = read("roberta_cls_cross")
    weights = fixture.state_dict
    del weights["token_decoder.lm_head.weight"], weights["token_decoder.decoder.embed_tokens.weight"]
    tokens = fixture["clean/input_ids"].flatten(1)
    torch.testing.assert_close(
        from_published(fixture.config, weights)(tokens), fixture["clean/logits"].flatten(1, 2), rtol=0, atol=1e-5
    )
    weights["token_decoder.lm_head.weight"] = weights["token_decoder.shared.weight"] + 1
    with pytest.raises(UserError, match=r"lm_head\.weight should be equal"):
        from_published(fixture.config, weights)


def test_wrong_weights_are_refused_in_one_line() -> None:
    fixture = read("prefix")
    name = "block_decoder.gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    missing = fixture.state_dict
    del missing[name]
    with pytest.raises(UserError, match=rf"1 missing tensors: {name}"):
        from_published(fixture.config, missing)
    unknown = fixture.state_dict | {"extra.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"1 unknown tensors: extra\.weight"):
        from_published(fixture.config, unknown)
    reshaped = fixture.state_dict | {name: torch.zeros(128, 31)}
    with pytest.raises(UserError, match=r"shape \[128, 31\], but this model needs \[128, 32\]"):
        from_published(fixture.config, reshaped)
    integers = fixture.state_dict | {name: torch.zeros(128, 32, dtype=torch.int64)}
    with pytest.raises(UserError, match="floating point"):
        from_published(fixture.config, integers)


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    part = config
    for parent in parents:
        part = part[parent]
    part[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("embedder.cls", "t5", "embedder.cls: 't5' is not supported"),
        ("embedder.n_embedding_tokens", 2, "n_embedding_tokens: 2"),
        ("block_decoder.cls", "gpt-neo", "block_decoder.cls: 'gpt-neo'"),
        ("block_decoder.config.use_parallel_residual", False, "use_parallel_residual: False"),
        ("block_decoder.config.num_attention_heads", 5, "not a multiple of heads 5"),
        ("block_decoder.model_name_or_path", "EleutherAI/pythia-12b", "'EleutherAI/pythia-12b' is not built in"),
        ("token_decoder.expansion_method", None, "expansion_method: None"),
        ("token_decoder.decoding_strategy", "fusion", "decoding_strategy: 'fusion'"),
        ("token_decoder.config.vocab_size", 62, "vocab_size: 61 is not supported here; 62 is"),
        ("block_split", {"distribution": "uniform"}, "block_split.distribution: 'uniform'"),
    ],
)
def test_configurations_that_are_not_supported(path: str, value: object, message: str) -> None:
    fixture = read("prefix")
    with pytest.raises(UserError, match=message):
        from_published(changed(fixture.config, path, value), fixture.state_dict)


def test_a_shipped_configuration_leans_on_the_hub() -> None:
    """The main 5M model and the 31M vanilla, as their YAML files say it."""
    neox = {"cls": "gpt-neo-x", "model_name_or_path": "EleutherAI/pythia-410m-deduped"}
    body = {"config": {"num_hidden_layers": 3, "hidden_size": 256}}
    config = config_from_published(
        {
            "block_length": 4,
            "block_split": {"distribution": "fixed", "distribution_kwargs": {"length": 4}},
            "max_length": 2048,
            "random_pad_first_block": True,
            "embedder": {
                "cls": "lookup",
                "model_name_or_path": None,
                "n_embedding_tokens": 1,
                "projection_method": "concat",
                "config": {"vocab_size": 50304, "hidden_size": 64},
            },
            "block_decoder": neox | body,
            "token_decoder": neox
            | body
            | {"expansion_method": "expansion_layer", "expansion_ratio": 2}
            | {"decoding_strategy": "prefix"},
        }
    )
    assert isinstance(config, BlockConfig)
    assert (config.block_decoder.heads, config.block_decoder.feed_forward, config.vocabulary) == (8, 1024, 50304)
    vanilla = config_from_published(
        {
            "model": "gpt-neo-x",
            "model_name_or_path": "EleutherAI/pythia-410m-deduped",
            "model_config": {"num_hidden_layers": 6, "num_attention_heads": 8, "hidden_size": 256},
        }
    )
    assert isinstance(vanilla, VanillaConfig)
    assert (vanilla.stack.feed_forward, vanilla.context_length) == (4096, 2048)


def test_training_with_padding_is_read_from_the_configuration() -> None:
    assert trained_with_padding({"random_pad_first_block": True})
    assert not trained_with_padding({"block_length": 4})


def test_a_results_folder(tmp_path: Path) -> None:
    fixture = read("prefix")
    (tmp_path / "block.yaml").write_text(yaml.safe_dump(fixture.config))
    for step, scale in ((900, 2.0), (10000, 1.0)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({name: value * scale for name, value in fixture.state_dict.items()}, folder / "model.safetensors")
    tokens = fixture["clean/input_ids"].flatten(1)
    model, config = load_published(tmp_path)
    assert config == fixture.config
    torch.testing.assert_close(model(tokens), fixture["clean/logits"].flatten(1, 2), rtol=0, atol=1e-5)


def test_a_damaged_results_folder(tmp_path: Path) -> None:
    fixture = read("prefix")
    with pytest.raises(UserError, match=r"0 \.yaml files"):
        load_published(tmp_path)
    (tmp_path / "block.yaml").write_text(yaml.safe_dump(fixture.config))
    with pytest.raises(UserError, match="no such file"):
        load_published(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file(fixture.state_dict, weights)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a complete safetensors file"):
        load_published(tmp_path)
    weights.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match="a pickle, which may run code and is not read"):
        load_published(tmp_path)
