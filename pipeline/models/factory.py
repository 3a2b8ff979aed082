"""A model from its configuration, and its initial weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.block_transformer import BlockTransformer
from pipeline.models.config import BlockConfig, ModelConfig
from pipeline.models.language_model import LanguageModel
from pipeline.models.layers import Layer, Stack
from pipeline.models.t5 import T5Layer
from pipeline.models.token_decoders import CrossAttentionTokenDecoder
from pipeline.models.vanilla import VanillaTransformer

__all__ = ["LanguageModel", "build", "initialise"]


def build(config: ModelConfig, device: torch.device | str = "cpu") -> LanguageModel:
    """The model of ``config``, initialised with seed 0. On device ``meta`` it has no weights and costs nothing."""
    with torch.device("meta"):
        model = BlockTransformer(config) if isinstance(config, BlockConfig) else VanillaTransformer(config)
    if torch.device(device).type != "meta":
        model.to_empty(device=device)
        initialise(model, seed=0)
    return model


@torch.no_grad()
def initialise(model: LanguageModel, seed: int, std: float = 0.02, depth_scaled: bool = False) -> None:
    """Draw every weight anew, as the published code does; the same on every device.

    Norms are 1 and 0, biases 0, matrices and tables normal. Their standard deviation is ``std``, in the projections
    between embedder, block decoder and token decoder 1 / sqrt(inputs), in a T5 decoder T5's own. ``depth_scaled``: in
    the two matrices of a GPT-NeoX layer that add to its input, ``std`` / sqrt(2 layers of its stack) (GPT-2, NeoX).
    """
    generator = torch.Generator().manual_seed(seed)
    deviations = _deviations(model)
    if depth_scaled:
        deviations |= _depth_scaled(model, std)
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if name == "bias":
                weight.zero_()
            elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
                weight.fill_(1.0)
            else:
                normal = torch.empty(weight.shape).normal_(generator=generator)
                weight.copy_(normal.mul_(deviations.get(module, std)))
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()


def _deviations(model: LanguageModel) -> dict[nn.Module, Tensor | float]:
    """Standard deviations other than ``std``, by module; a tensor [outputs, 1] where rows differ."""
    if not isinstance(model, BlockTransformer):
        return {}
    linears = [model.token_decoder.expansion]
    if model.embedder.projection is not None:
        linears.append(model.embedder.projection)
    deviations: dict[nn.Module, Tensor | float] = {linear: linear.in_features**-0.5 for linear in linears}
    if isinstance(model.token_decoder, CrossAttentionTokenDecoder):
        deviations |= _t5_deviations(model.token_decoder)
    return deviations


def _depth_scaled(model: LanguageModel, std: float) -> dict[nn.Module, Tensor | float]:
    """So that the sum of a stack's outputs is as large as one layer's, whatever its depth."""
    deviations: dict[nn.Module, Tensor | float] = {}
    for stack in model.modules():
        if isinstance(stack, Stack):
            for layer in stack.layers:
                assert isinstance(layer, Layer)
                for linear in (layer.attention_output, layer.feed_forward_out):
                    deviations[linear] = std * (2 * len(stack.layers)) ** -0.5
    return deviations


def _t5_deviations(token_decoder: CrossAttentionTokenDecoder) -> dict[nn.Module, Tensor | float]:
    decoder = token_decoder.decoder
    width, head_width = decoder.config.width, decoder.config.head_width
    deviations: dict[nn.Module, Tensor | float] = {token_decoder.embedding: 1.0, decoder.relative_bias: width**-0.5}
    for layer in decoder.layers:
        assert isinstance(layer, T5Layer)
        rows = torch.full((layer.query_key_value.out_features, 1), width**-0.5)
        rows[:width] *= head_width**-0.5
        deviations[layer.query_key_value] = rows
        deviations[layer.cross_query] = (width * head_width) ** -0.5
        for linear in (layer.attention_output, layer.cross_keys_values, layer.cross_output):
            deviations[linear] = width**-0.5
        deviations[layer.feed_forward_in] = width**-0.5
        deviations[layer.feed_forward_out] = decoder.config.feed_forward**-0.5
    return deviations
