"""A stack's weights in the form that decoding wants: two matrix products a GPT-NeoX layer, four a Llama layer.

Legend: M rows, D width, F feed-forward width, H heads, KV key/value heads, E head width.

Both norms of a GPT-NeoX layer read the same input, so each norm's scale and bias are folded into the matrix that
follows and one plain normalisation serves both. The branches then share one input projection, D -> [values KV*E |
keys KV*E | queries H*E | feed-forward F], and one output projection, [attention H*E | feed-forward F] -> D. The output
biases are constants: instead of adding them to the residual stream, every norm adds the sum of those before it
(``shift``).
A Llama layer's feed-forward reads what attention has added to, so that it keeps products of its own, behind a norm
whose scale is folded likewise; nothing has a bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.models.config import StackConfig
from pipeline.models.layers import Layer, LlamaLayer, Stack


@dataclass(frozen=True)
class FoldedFeedForward:
    """The feed-forward of a layer where attention comes first: ``input_weight`` [gate F | inner state F, D].

    ``output_weight`` [D, F].
    """

    input_weight: Tensor
    output_weight: Tensor


@dataclass(frozen=True)
class FoldedLayer:
    """``input_weight`` [2 KV E + H E + F, D], ``input_bias``, ``output_weight`` [D, H E + F], ``shift`` [D] fp32.

    With a ``feed_forward`` of its own both matrices are without F. ``head_scale`` fp32 [KV E + H E]: what keys and
    queries are multiplied by, once every head is divided by its root mean square.
    """

    input_weight: Tensor
    input_bias: Tensor | None
    output_weight: Tensor
    shift: Tensor | None
    feed_forward: FoldedFeedForward | None = None
    head_scale: Tensor | None = None


@dataclass(frozen=True)
class FoldedStack:
    """The layers, the shift before the final norm, and the final norm's own scale and bias (none of an RMS norm)."""

    config: StackConfig
    layers: list[FoldedLayer]
    shift: Tensor | None
    norm_weight: Tensor
    norm_bias: Tensor | None

    @property
    def key_values(self) -> int:
        """Columns of a projected row that hold values and keys."""
        return 2 * self.config.kv_heads * self.config.head_width

    @cached_property
    def columns(self) -> int:
        """Width of a projected row."""
        return self.layers[0].input_weight.shape[0] if self.layers else 0

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and of what flows between the layers."""
        return self.norm_weight.dtype


@torch.no_grad()
def fold(stack: Stack) -> FoldedStack:
    """The folded weights of ``stack``; computed in fp32, kept in the stack's own type."""
    norm_weight = stack.norm.weight.detach()
    if not stack.config.centred:
        return FoldedStack(stack.config, [_fold_llama(layer) for layer in stack.layers], None, norm_weight, None)
    shift = torch.zeros_like(norm_weight, dtype=torch.float32)
    layers = []
    for layer in stack.layers:
        assert isinstance(layer, Layer)
        layers.append(_fold_neox(layer, shift, norm_weight.dtype))
        shift = shift + layer.attention_output.bias.float() + layer.feed_forward_out.bias.float()
    assert isinstance(stack.norm, nn.LayerNorm)
    return FoldedStack(stack.config, layers, shift, norm_weight, stack.norm.bias.detach())


def _fold_llama(layer: nn.Module) -> FoldedLayer:
    assert isinstance(layer, LlamaLayer)
    config, dtype = layer.config, layer.query_key_value.weight.dtype
    attention, _ = fold_norm(layer.attention_norm, layer.query_key_value)
    query, key, value = attention.split([config.query_width, config.key_width, config.key_width])
    inner, _ = fold_norm(layer.feed_forward_norm, layer.feed_forward_in)
    scale = None
    if layer.query_norm is not None and layer.key_norm is not None:
        key_scale, query_scale = layer.key_norm.weight.float(), layer.query_norm.weight.float()
        scale = torch.cat([key_scale.repeat(config.kv_heads), query_scale.repeat(config.heads)])
    return FoldedLayer(
        torch.cat([value, key, query]).to(dtype),
        None,
        layer.attention_output.weight.detach(),
        None,
        FoldedFeedForward(inner.to(dtype), layer.feed_forward_out.weight.detach()),
        scale,
    )


def _fold_neox(layer: Layer, shift: Tensor, dtype: torch.dtype) -> FoldedLayer:
    config = layer.config
    attention_weight, attention_bias = fold_norm(layer.attention_norm, layer.query_key_value)
    widths = [config.query_width, config.key_width, config.key_width]
    query, key, value = attention_weight.split(widths)
    query_bias, key_bias, value_bias = attention_bias.split(widths)
    inner, inner_bias = fold_norm(layer.feed_forward_norm, layer.feed_forward_in)
    return FoldedLayer(
        torch.cat([value, key, query, inner]).to(dtype),
        torch.cat([value_bias, key_bias, query_bias, inner_bias]).to(dtype),
        torch.cat([layer.attention_output.weight, layer.feed_forward_out.weight], dim=1).detach().contiguous(),
        shift,
    )


def fold_norm(norm: nn.LayerNorm | nn.RMSNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """fp32 weight and bias with ``linear(norm(x)) = weight @ normalise(x) + bias``."""
    weight = linear.weight.float()
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.float()
    if isinstance(norm, nn.LayerNorm):
        bias = bias + weight @ norm.bias.float()
    return weight * norm.weight.float(), bias


def rotary_tables(config: StackConfig, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """fp32 ``cosine``, ``sine`` [positions, E]: rotated = x * cosine + partner * sine, 1 and 0 where not rotated.

    The partner of a dimension is the one half the rotary width away, as in GPT-NeoX.
    """
    width, half = config.rotary_width, config.rotary_width // 2
    cosine = torch.ones(positions, config.head_width, device=device)
    sine = torch.zeros(positions, config.head_width, device=device)
    exponent = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    angle = torch.arange(positions, device=device)[:, None].float() * config.rotary_base**-exponent
    cosine[:, :width] = angle.cos().repeat(1, 2)
    sine[:, :half], sine[:, half:width] = -angle.sin(), angle.sin()
    return cosine, sine


def rotate_heads(heads: Tensor, config: StackConfig, cosine: Tensor, sine: Tensor) -> None:
    """Rotate ``heads`` [..., E] in place by :func:`rotary_tables` of their positions."""
    width = config.rotary_width
    turned = heads[..., :width]
    swapped = torch.cat([turned[..., width // 2 :], turned[..., : width // 2]], dim=-1)
    turned.copy_(turned * cosine[..., :width] + swapped * sine[..., :width])
