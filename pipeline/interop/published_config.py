"""The published code's training configurations, as model configurations and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.base.errors import UserError
from pipeline.interop.hub import HUB, PYTHIA, ROBERTA, T5
from pipeline.interop.names import require_neox, require_untied
from pipeline.models.config import (
    BlockConfig,
    ClsConfig,
    CrossAttentionConfig,
    EmbedderConfig,
    EncoderConfig,
    LookupConfig,
    ModelConfig,
    NeoxDecoderConfig,
    PrefixConfig,
    ProjectionConfig,
    RobertaConfig,
    StackConfig,
    SummationConfig,
    T5Config,
    TokenDecoderConfig,
    VanillaConfig,
)
from pipeline.models.stack_config import default_heads

Json = dict[str, Any]
FEED_FORWARD = 4
CONTEXT_LENGTH = 2048


def config_from_published(published: Mapping[str, Any]) -> ModelConfig:
    """The architecture of a published training configuration. Raises :class:`UserError` for what is not supported."""
    try:
        if block_length(published) is None:
            return _vanilla(published)
        return _block(published)
    except KeyError as error:
        raise UserError(f"published configuration: the key {error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise error if isinstance(error, UserError) else UserError(f"published configuration: {error}") from None


def block_length(published: Mapping[str, Any]) -> int | None:
    """Tokens per block, from ``block_length`` or the newer ``block_split``; ``None`` for a vanilla configuration."""
    split = published.get("block_split")
    if not split:
        return published.get("block_length")
    require_supported("block_split.distribution", split.get("distribution"), "fixed")
    length = int(split["distribution_kwargs"]["length"])
    require_supported("block_length", published.get("block_length", length), length)
    return length


def trained_with_padding(published: Mapping[str, Any]) -> bool:
    """Whether the model saw random-length left padding, so that it may be scored with it.

    Configurations that do not say so were trained without (the published main models of 300M and more).
    """
    return bool(published.get("random_pad_first_block", False))


def neox_stack_config(values: Mapping[str, Any]) -> StackConfig:
    """A GPT-NeoX stack from Hugging Face's configuration keys. Raises :class:`UserError` for what is not supported."""
    rope = values.get("rope_parameters") or {}
    require_supported("use_parallel_residual", values.get("use_parallel_residual", True), True)
    require_supported("hidden_act", values.get("hidden_act", "gelu"), "gelu")
    require_supported("attention_bias", values.get("attention_bias", True), True)
    require_supported("tie_word_embeddings", values.get("tie_word_embeddings", False), False)
    require_supported("rope_scaling", values.get("rope_scaling"), None)
    require_supported("rope_parameters.rope_type", rope.get("rope_type", "default"), "default")
    heads = values["num_attention_heads"]
    return StackConfig(
        layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        heads=heads,
        kv_heads=heads,
        feed_forward=values["intermediate_size"],
        rotary_fraction=float(rope.get("partial_rotary_factor", values.get("rotary_pct", 0.25))),
        rotary_base=float(rope.get("rope_theta", values.get("rotary_emb_base", 10000))),
        norm_eps=values.get("layer_norm_eps", 1e-5),
    )


def neox_values(stack: StackConfig, vocabulary: int) -> Json:
    """Inverse of :func:`neox_stack_config`."""
    rotary = {"rotary_pct": stack.rotary_fraction, "rotary_emb_base": stack.rotary_base}
    return _layer_values(stack, vocabulary) | rotary


def _layer_values(stack: StackConfig | EncoderConfig, vocabulary: int) -> Json:
    return {
        "vocab_size": vocabulary,
        "hidden_size": stack.width,
        "num_hidden_layers": stack.layers,
        "num_attention_heads": stack.heads,
        "intermediate_size": stack.feed_forward,
        "layer_norm_eps": stack.norm_eps,
    }


def config_to_published(config: ModelConfig) -> Json:
    """Inverse of :func:`config_from_published`. Raises :class:`UserError` for what that code cannot express."""
    if isinstance(config, VanillaConfig):
        require_neox(config.stack, "model")
        require_untied(config.tied, "model")
        values = neox_values(config.stack, config.vocabulary)
        head = {"model": "gpt-neo-x", "model_name_or_path": PYTHIA, "model_config": values}
        return {**head, "max_length": config.context_length}
    assert isinstance(config, BlockConfig)
    require_neox(config.block_decoder, "block_decoder")
    return {
        "block_length": config.block_length,
        "max_length": config.context_length,
        "embedder": _embedder_to(config),
        "block_decoder": {
            "cls": "gpt-neo-x",
            "model_name_or_path": PYTHIA,
            "config": neox_values(config.block_decoder, config.vocabulary),
        },
        "token_decoder": _token_decoder_to(config),
    }


def _vanilla(published: Mapping[str, Any]) -> VanillaConfig:
    require_supported("model", published["model"], "gpt-neo-x")
    values = _hub(published, PYTHIA) | dict(published.get("model_config") or {})
    return VanillaConfig(values["vocab_size"], published.get("max_length", CONTEXT_LENGTH), neox_stack_config(values))


def _block(published: Mapping[str, Any]) -> BlockConfig:
    length = block_length(published)
    assert length is not None
    block, token = published["block_decoder"], published["token_decoder"]
    require_supported("block_decoder.cls", block["cls"], "gpt-neo-x")
    decoder, vocabulary = _token_decoder(token, length)
    embedder, embedded = _embedder(published["embedder"])
    require_supported("embedder.config.vocab_size", embedded, vocabulary)
    return BlockConfig(
        vocabulary=vocabulary,
        context_length=published.get("max_length", CONTEXT_LENGTH),
        block_length=length,
        embedder=embedder,
        block_decoder=neox_stack_config(_filled(block, PYTHIA)),
        token_decoder=decoder,
    )


def _embedder(part: Mapping[str, Any]) -> tuple[EmbedderConfig, int]:
    require_supported("embedder.n_embedding_tokens", part.get("n_embedding_tokens") or 1, 1)
    method = part.get("projection_method") or "projection_layer"
    if part["cls"] == "lookup":
        if method not in ("concat", "projection_layer"):
            raise UserError(f"embedder.projection_method: {method!r} is not supported; concat or projection_layer is")
        values = part["config"]
        kind = LookupConfig if method == "concat" else ProjectionConfig
        return kind(values["hidden_size"]), values["vocab_size"]
    if part["cls"] not in ("roberta", "roberta_cls"):
        raise UserError(f"embedder.cls: {part['cls']!r} is not supported; lookup, roberta and roberta_cls are")
    require_supported("embedder.projection_method", method, "projection_layer")
    values = _filled(part, ROBERTA)
    require_supported("embedder.config.hidden_act", values["hidden_act"], "gelu")
    require_supported("embedder.config.max_position_embeddings", values["max_position_embeddings"], 514)
    heads = values["num_attention_heads"]
    stack = EncoderConfig(
        values["num_hidden_layers"],
        values["hidden_size"],
        heads,
        heads,
        values["intermediate_size"],
        norm_eps=values["layer_norm_eps"],
    )
    padding_token, cls_tokens = values["pad_token_id"], part["n_cls_tokens"] if part["cls"] == "roberta_cls" else 0
    if cls_tokens:
        return ClsConfig(stack, padding_token, cls_tokens), values["vocab_size"]
    return RobertaConfig(stack, padding_token), values["vocab_size"]


def _token_decoder(part: Mapping[str, Any], length: int) -> tuple[TokenDecoderConfig, int]:
    strategy, ratio = part["decoding_strategy"], part.get("expansion_ratio")
    method = part.get("expansion_method", "expansion_layer")
    require_supported("token_decoder.expansion_method", method, "expansion_layer")
    expected = {"prefix": "gpt-neo-x", "summation": "gpt-neo-x", "cross_attention": "t5"}
    if strategy not in expected:
        raise UserError(f"token_decoder.decoding_strategy: {strategy!r} is not one of {', '.join(expected)}")
    require_supported("token_decoder.cls", part["cls"], expected[strategy])
    if strategy == "prefix":
        values = _filled(part, PYTHIA)
        return PrefixConfig(neox_stack_config(values), part["expansion_ratio"]), values["vocab_size"]
    require_supported("token_decoder.expansion_ratio", ratio or length, length)
    if strategy == "summation":
        values = _filled(part, PYTHIA)
        return SummationConfig(neox_stack_config(values)), values["vocab_size"]
    values = _hub(part, T5) | dict(part.get("config") or {})
    return CrossAttentionConfig(_t5_stack(values)), values["vocab_size"]


def _t5_stack(values: Mapping[str, Any]) -> T5Config:
    for key in ("relative_attention_num_buckets", "relative_attention_max_distance", "feed_forward_proj"):
        require_supported(f"token_decoder.config.{key}", values[key], HUB[T5][key])
    heads, width = values["num_heads"], values["d_model"]
    require_supported("token_decoder.config.d_kv", values["d_kv"], width // heads)
    layers = values.get("num_decoder_layers") or values["num_layers"]
    return T5Config(layers, width, heads, heads, values["d_ff"], norm_eps=values["layer_norm_epsilon"])


def _filled(part: Mapping[str, Any], default: str) -> Json:
    """Hugging Face's keys of a part; heads and feed-forward width follow from the width where ``config`` is silent."""
    values = _hub(part, default)
    own: Json = {key: value for key, value in (part.get("config") or {}).items() if value is not None}
    if own:
        width = (values | own)["hidden_size"]
        values |= {"num_attention_heads": default_heads(width), "intermediate_size": FEED_FORWARD * width}
    return values | own


def _hub(part: Mapping[str, Any], default: str) -> Json:
    name = part.get("model_name_or_path") or default
    if name not in HUB:
        raise UserError(f"model_name_or_path: {name!r} is not built in; the known ones are {', '.join(HUB)}")
    return dict(HUB[name])


def require_supported(key: str, value: object, supported: object) -> None:
    """Raise :class:`UserError` unless a key's value is the one that is supported."""
    if value != supported:
        raise UserError(f"{key}: {value!r} is not supported here; {supported!r} is")


def _embedder_to(config: BlockConfig) -> Json:
    embedder = config.embedder
    part: Json = {"n_embedding_tokens": 1}
    for key in ("overlap", "convolution"):
        if value := getattr(embedder, key, None):
            raise UserError(f"embedder: {key} {value} cannot be exported; the published ones see their own block only")
    if isinstance(embedder, LookupConfig | ProjectionConfig):
        method = "concat" if isinstance(embedder, LookupConfig) else "projection_layer"
        values: Json = {"vocab_size": config.vocabulary, "hidden_size": embedder.width}
        return part | {"cls": "lookup", "projection_method": method, "config": values}
    if not isinstance(embedder, RobertaConfig):
        raise UserError(f"embedder: the kind {embedder.kind} cannot be exported; the published code has none such")
    if embedder.padding_token is None:
        raise UserError("embedder: an encoder without a padding token cannot be exported; the published one has one")
    require_neox(embedder.stack, "embedder")
    values = _layer_values(embedder.stack, config.vocabulary) | {"pad_token_id": embedder.padding_token}
    cls: Json = {"cls": "roberta"}
    if isinstance(embedder, ClsConfig):
        cls = {"cls": "roberta_cls", "n_cls_tokens": embedder.cls_tokens}
    return part | cls | {"model_name_or_path": ROBERTA, "projection_method": None, "config": values}


def _token_decoder_to(config: BlockConfig) -> Json:
    decoder = config.token_decoder
    require_neox(decoder.stack, "token_decoder")
    require_untied(isinstance(decoder, NeoxDecoderConfig) and decoder.tied, "token_decoder")
    part: Json = {
        "decoding_strategy": decoder.kind,
        "expansion_method": "expansion_layer",
        "expansion_ratio": config.slots,
    }
    if isinstance(decoder, PrefixConfig) and decoder.local:
        raise UserError(
            f"token_decoder: local {decoder.local} cannot be exported; the published one sees its own block"
        )
    if isinstance(decoder, PrefixConfig) and decoder.carry:
        raise UserError("token_decoder: carry cannot be exported; the published one sees its own block")
    if decoder.remembered:
        raise UserError(
            f"token_decoder: memory {decoder.remembered} cannot be exported; the published one sees its own block"
        )
    if decoder.seen > 1:
        raise UserError(f"token_decoder: contexts {decoder.seen} cannot be exported; the published one sees the last")
    if isinstance(decoder, PrefixConfig | SummationConfig):
        values = neox_values(decoder.stack, config.vocabulary)
        return part | {"cls": "gpt-neo-x", "model_name_or_path": PYTHIA, "config": values}
    if not isinstance(decoder, CrossAttentionConfig):
        raise UserError(f"token_decoder: the kind {decoder.kind} cannot be exported; the published code has none such")
    stack = decoder.stack
    values = {
        "vocab_size": config.vocabulary,
        "d_model": stack.width,
        "d_kv": stack.head_width,
        "d_ff": stack.feed_forward,
        "num_layers": stack.layers,
        "num_decoder_layers": stack.layers,
        "num_heads": stack.heads,
        "layer_norm_epsilon": stack.norm_eps,
    }
    return part | {"cls": "t5", "model_name_or_path": T5, "config": values}
