"""Architectures as frozen dataclasses, by name, and their form as JSON. No torch: planning and reporting read these."""

from __future__ import annotations

from typing import Any

from pipeline.models.block_config import BlockConfig
from pipeline.models.embedder_config import (
    ClsConfig,
    EmbedderConfig,
    EncoderConfig,
    LookupConfig,
    ProjectionConfig,
    RobertaConfig,
)
from pipeline.models.family_config import ModelConfig, VanillaConfig
from pipeline.models.parts import kind_named
from pipeline.models.stack_config import LayersConfig, LlamaConfig, StackConfig
from pipeline.models.token_decoder_config import (
    CrossAttentionConfig,
    NeoxDecoderConfig,
    PrefixConfig,
    SummationConfig,
    T5Config,
    TokenDecoderConfig,
)

__all__ = [
    "BlockConfig",
    "ClsConfig",
    "CrossAttentionConfig",
    "EmbedderConfig",
    "EncoderConfig",
    "LayersConfig",
    "LlamaConfig",
    "LookupConfig",
    "ModelConfig",
    "NeoxDecoderConfig",
    "PrefixConfig",
    "ProjectionConfig",
    "RobertaConfig",
    "StackConfig",
    "SummationConfig",
    "T5Config",
    "TokenDecoderConfig",
    "VanillaConfig",
    "from_dict",
    "to_dict",
]

FAMILIES: dict[str, type[ModelConfig]] = {"vanilla": VanillaConfig, "block": BlockConfig}


def to_dict(config: ModelConfig) -> dict[str, Any]:
    """The config as JSON-ready nested dictionaries; :class:`pipeline.models.parts.Part` has the rule."""
    return config.to_dict()


def from_dict(values: dict[str, Any]) -> ModelConfig:
    """Inverse of :func:`to_dict`. Raises ``ValueError`` for another form, an unknown family or key."""
    family = values.get("family") if isinstance(values, dict) else None
    kind = kind_named(FAMILIES, "model family", family)
    try:
        return kind.from_dict(values)
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a model configuration: {error}") from error
