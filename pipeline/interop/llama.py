"""Hugging Face's Llama and Qwen3 (SmolLM is a Llama): their configuration keys and names, in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.base.errors import UserError
from pipeline.interop.names import Entry, copied, joined, same
from pipeline.interop.published_config import require_supported
from pipeline.models.config import LlamaConfig, VanillaConfig

Json = dict[str, Any]

PLAIN = {"hidden_act": "silu", "attention_bias": False}
"""What both have as a key and only in one way here."""


def read_llama(values: Mapping[str, Any]) -> VanillaConfig:
    """The model of a Llama's keys. Raises :class:`UserError` for what is not supported, and ``KeyError``."""
    require_supported("mlp_bias", values.get("mlp_bias", False), False)
    heads = values["num_attention_heads"]
    return _read(values, values.get("num_key_value_heads") or heads, values.get("head_dim"), query_key_norm=False)


def read_qwen3(values: Mapping[str, Any]) -> VanillaConfig:
    """The model of a Qwen3's keys; errors as of :func:`read_llama`."""
    require_supported("use_sliding_window", values.get("use_sliding_window", False), False)
    others = set(values.get("layer_types") or []) - {"full_attention"}
    require_supported("layer_types", next(iter(sorted(others)), "full_attention"), "full_attention")
    return _read(values, values["num_key_value_heads"], values["head_dim"], query_key_norm=True)


def _read(values: Mapping[str, Any], kv_heads: int, head_dim: int | None, query_key_norm: bool) -> VanillaConfig:
    for key, supported in PLAIN.items():
        require_supported(key, values.get(key, supported), supported)
    require_supported("rope_scaling", values.get("rope_scaling"), None)
    rope = values.get("rope_parameters") or {}
    require_supported("rope_parameters.rope_type", rope.get("rope_type", "default"), "default")
    require_supported("rope_parameters.partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), 1.0)
    stack = LlamaConfig(
        layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        heads=values["num_attention_heads"],
        kv_heads=kv_heads,
        feed_forward=values["intermediate_size"],
        rotary_base=float(rope.get("rope_theta", values.get("rope_theta", 10000))),
        norm_eps=values.get("rms_norm_eps", 1e-6),
        query_key_norm=query_key_norm,
        head_dim=head_dim,
    )
    tied = values.get("tie_word_embeddings", False)
    return VanillaConfig(values["vocab_size"], values["max_position_embeddings"], stack, tied)


def llama_values(config: VanillaConfig) -> Json:
    """Inverse of :func:`read_llama` and :func:`read_qwen3`. Raises :class:`UserError` for what these cannot express."""
    stack = config.stack
    assert isinstance(stack, LlamaConfig)
    if stack.window is not None:
        raise UserError(f"model: window {stack.window} cannot be exported; Llama attends to all positions")
    if stack.rotary_fraction != 1:
        raise UserError(f"model: rotary_fraction {stack.rotary_fraction} cannot be exported; Llama rotates whole heads")
    return {
        **PLAIN,
        **({} if stack.query_key_norm else {"mlp_bias": False}),
        "vocab_size": config.vocabulary,
        "hidden_size": stack.width,
        "num_hidden_layers": stack.layers,
        "num_attention_heads": stack.heads,
        "num_key_value_heads": stack.kv_heads,
        "head_dim": stack.head_width,
        "intermediate_size": stack.feed_forward,
        "rms_norm_eps": stack.norm_eps,
        "rope_theta": stack.rotary_base,  # as transformers before 5 reads it
        "rope_parameters": {"rope_type": "default", "rope_theta": stack.rotary_base},
        "tie_word_embeddings": config.tied,
    }


def llama_entries(config: VanillaConfig) -> list[Entry]:
    """The table of names, the same for both."""
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    if config.tied:
        tables = [copied("embedding.weight", [table, head])]
    else:
        tables = [same("embedding.weight", table), same("head.weight", head)]
    stack = config.stack
    assert isinstance(stack, LlamaConfig)
    layers = [entry for layer in range(stack.layers) for entry in _layer(stack, layer)]
    return [*tables, *layers, same("stack.norm.weight", "model.norm.weight")]


def _layer(stack: LlamaConfig, layer: int) -> list[Entry]:
    ours, theirs = f"stack.layers.{layer}", f"model.layers.{layer}"
    pairs = {
        "attention_norm": "input_layernorm",
        "attention_output": "self_attn.o_proj",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward_out": "mlp.down_proj",
    }
    if stack.query_key_norm:
        pairs |= {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
    attention = [f"{theirs}.self_attn.{part}_proj.weight" for part in "qkv"]
    inner = [f"{theirs}.mlp.{part}_proj.weight" for part in ("gate", "up")]
    return [
        joined(f"{ours}.query_key_value.weight", attention, [stack.query_width, stack.key_width, stack.key_width]),
        joined(f"{ours}.feed_forward_in.weight", inner, [stack.feed_forward] * 2),
        *[same(f"{ours}.{name}.weight", f"{theirs}.{pairs[name]}.weight") for name in pairs],
    ]
