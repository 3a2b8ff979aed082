"""Checkpoints of the published Block Transformer code, in and out.

A published configuration is the content of one of its training YAML files as a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.base.errors import UserError
from pipeline.base.files import foreign
from pipeline.interop.names import Entry, convolution, copied, joined, neox_stack, read_into, same, write_from
from pipeline.interop.published_config import config_from_published, config_to_published
from pipeline.models.checkpoint import read_weights
from pipeline.models.config import (
    BlockConfig,
    ClsConfig,
    CrossAttentionConfig,
    EncoderConfig,
    ModelConfig,
    NeoxDecoderConfig,
    ProjectionConfig,
    RobertaConfig,
    T5Config,
    VanillaConfig,
)
from pipeline.models.factory import build
from pipeline.models.language_model import LanguageModel

DEAD = ("block_decoder.gpt_neox.embed_in.weight",)
"""The block decoder's token table: stored by the published code, never used."""


def from_published(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> LanguageModel:
    """The model of a published configuration with the weights that it names.

    Weights keep their dtype. Raises :class:`UserError` for a configuration that is not supported and for weights that
    are missing, unknown or of another shape.
    """
    return _import(config_from_published(config), state_dict, "state dict")


def to_published(model: LanguageModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Inverse of :func:`from_published`, without the dead weights.

    Raises :class:`UserError` for what the published code cannot express: grouped queries, windows.
    """
    return config_to_published(model.config), write_from(model, entries(model.config))


def load_published(folder: Path | str) -> tuple[LanguageModel, dict[str, Any]]:
    """Model and configuration of a results folder: a ``.yaml`` file, ``model.safetensors`` there or in checkpoint-*.

    Raises :class:`UserError`, as :func:`from_published` does.
    """
    folder = Path(folder)
    config = _read_yaml(folder)
    try:
        wanted = config_from_published(config)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    weights = folder / "model.safetensors"
    if not weights.exists():
        weights = max(folder.glob("checkpoint-*/model.safetensors"), key=_step, default=weights)
    return _import(wanted, read_weights(weights), weights), config


def entries(config: ModelConfig) -> list[Entry]:
    """The table of names for a model of ``config``."""
    if isinstance(config, VanillaConfig):
        return vanilla_entries(config)
    assert isinstance(config, BlockConfig)
    block_decoder = neox_stack("block_decoder", "block_decoder.gpt_neox", config.block_decoder)
    return _embedder(config) + block_decoder + _token_decoder(config)


def vanilla_entries(config: VanillaConfig) -> list[Entry]:
    """The table of names for a vanilla transformer, the same as Hugging Face's GPT-NeoX."""
    return [
        same("embedding.weight", "gpt_neox.embed_in.weight"),
        *neox_stack("stack", "gpt_neox", config.stack),
        same("head.weight", "embed_out.weight"),
    ]


def _import(config: ModelConfig, state_dict: Mapping[str, Tensor], source: Path | str) -> LanguageModel:
    model = build(config, device="meta")
    read_into(model, entries(model.config), state_dict, DEAD, source)
    return model.eval()


def _step(weights: Path) -> int:
    step = weights.parent.name.removeprefix("checkpoint-")
    return int(step) if step.isdigit() else -1


def _read_yaml(folder: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    found = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if len(found) != 1:
        raise UserError(f"{folder}: {len(found)} .yaml files; a results folder holds one, the training configuration")
    try:
        content = OmegaConf.to_container(OmegaConf.load(found[0]), resolve=False)
    except (YAMLError, ValueError, OSError, RecursionError, OmegaConfBaseException) as error:
        what = foreign(found[0]) or f"not valid YAML ({' '.join(str(error).split())})"
        raise UserError(f"{found[0]}: {what}") from None
    if not isinstance(content, dict) or foreign(found[0]):
        what = foreign(found[0]) or f"a training configuration is a mapping, not {type(content).__name__}"
        raise UserError(f"{found[0]}: {what}")
    return {str(key): value for key, value in content.items()}


def _embedder(config: BlockConfig) -> list[Entry]:
    embedder = config.embedder
    if isinstance(embedder, RobertaConfig):
        table = _encoder(embedder.stack)
    else:
        table = [same("embedder.embedding.weight", "embedder.embeddings.weight")]
    if not isinstance(embedder, RobertaConfig | ProjectionConfig):
        return table
    kernel = embedder.cls_tokens if isinstance(embedder, ClsConfig) else config.block_length
    return [
        *table,
        convolution("embedder.projection.weight", "embedder.projection_layer.weight", kernel),
        same("embedder.projection.bias", "embedder.projection_layer.bias"),
    ]


def _encoder(stack: EncoderConfig) -> list[Entry]:
    tables = {
        "embedding.weight": "word_embeddings.weight",
        "positions.weight": "position_embeddings.weight",
        "token_type.weight": "token_type_embeddings.weight",
        "norm.weight": "LayerNorm.weight",
        "norm.bias": "LayerNorm.bias",
    }
    pairs = {
        "attention_output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "feed_forward_in": "intermediate.dense",
        "feed_forward_out": "output.dense",
        "feed_forward_norm": "output.LayerNorm",
    }
    found = [same(f"embedder.encoder.{ours}", f"embedder.embeddings.{theirs}") for ours, theirs in tables.items()]
    for layer in range(stack.layers):
        ours, theirs = f"embedder.encoder.layers.{layer}", f"embedder.encoder.layer.{layer}"
        for kind in ("weight", "bias"):
            parts = [f"{theirs}.attention.self.{part}.{kind}" for part in ("query", "key", "value")]
            found.append(joined(f"{ours}.query_key_value.{kind}", parts, [stack.width] * 3))
            found += [same(f"{ours}.{name}.{kind}", f"{theirs}.{pairs[name]}.{kind}") for name in pairs]
    return found


def _token_decoder(config: BlockConfig) -> list[Entry]:
    expansion = [
        convolution("token_decoder.expansion.weight", "token_decoder.expansion_layer.weight", 1),
        same("token_decoder.expansion.bias", "token_decoder.expansion_layer.bias"),
    ]
    decoder = config.token_decoder
    if isinstance(decoder, CrossAttentionConfig):
        return expansion + _t5(decoder.stack)
    assert isinstance(decoder, NeoxDecoderConfig)
    return [
        *expansion,
        same("token_decoder.embedding.weight", "token_decoder.gpt_neox.embed_in.weight"),
        *neox_stack("token_decoder.stack", "token_decoder.gpt_neox", decoder.stack),
        same("token_decoder.head.weight", "token_decoder.embed_out.weight"),
    ]


def _t5(stack: T5Config) -> list[Entry]:
    shared = (
        "token_decoder.shared.weight",
        "token_decoder.decoder.embed_tokens.weight",
        "token_decoder.lm_head.weight",
    )
    bias = "token_decoder.decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    found = [
        copied("token_decoder.embedding.weight", shared),
        same("token_decoder.decoder.relative_bias.weight", bias),
        same("token_decoder.decoder.norm.weight", "token_decoder.decoder.final_layer_norm.weight"),
    ]
    for layer in range(stack.layers):
        found += _t5_layer(f"token_decoder.decoder.layers.{layer}", f"token_decoder.decoder.block.{layer}.layer", stack)
    return found


def _t5_layer(ours: str, theirs: str, stack: T5Config) -> list[Entry]:
    attention = [f"{theirs}.0.SelfAttention.{part}.weight" for part in "qkv"]
    cross = [f"{theirs}.1.EncDecAttention.{part}.weight" for part in "kv"]
    pairs = {
        "attention_norm": "0.layer_norm",
        "attention_output": "0.SelfAttention.o",
        "cross_norm": "1.layer_norm",
        "cross_query": "1.EncDecAttention.q",
        "cross_output": "1.EncDecAttention.o",
        "feed_forward_norm": "2.layer_norm",
        "feed_forward_in": "2.DenseReluDense.wi",
        "feed_forward_out": "2.DenseReluDense.wo",
    }
    return [
        joined(f"{ours}.query_key_value.weight", attention, [stack.width] * 3),
        joined(f"{ours}.cross_keys_values.weight", cross, [stack.width] * 2),
        *[same(f"{ours}.{name}.weight", f"{theirs}.{pairs[name]}.weight") for name in pairs],
    ]
