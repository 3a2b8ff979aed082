"""A model from its configuration, and its initial weights."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pipeline.models.family_config import ModelConfig, VanillaConfig
from pipeline.models.language_model import LanguageModel
from pipeline.models.layers import Layer, Stack

__all__ = ["LanguageModel", "build", "initialise"]


def build(config: ModelConfig, device: torch.device | str = "cpu") -> LanguageModel:
    """The model of ``config``, initialised with seed 0. On device ``meta`` it has no weights and costs nothing."""
    with torch.device("meta"):
        model = _modules(config)
    if torch.device(device).type != "meta":
        model.to_empty(device=device)
        initialise(model, seed=0)
    return model


def _modules(config: ModelConfig) -> LanguageModel:
    """Each family is imported where it is built: what decides a vanilla model's weights needs no block transformer."""
    if isinstance(config, VanillaConfig):
        from pipeline.models.vanilla import VanillaTransformer

        return VanillaTransformer(config)
    from pipeline.models.block_config import BlockConfig
    from pipeline.models.block_transformer import BlockTransformer

    assert isinstance(config, BlockConfig)
    return BlockTransformer(config)


@runtime_checkable
class OwnDeviations(Protocol):
    """A module that draws some of its parts with standard deviations of their own."""

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """Standard deviations by part; a tensor [outputs, 1] where rows differ."""


@torch.no_grad()
def initialise(model: LanguageModel, seed: int, std: float = 0.02, depth_scaled: bool = False) -> None:
    """Draw every weight anew, as the published code does; the same on every device.

    Norms are 1 and 0, biases 0, matrices and tables normal. Their standard deviation is ``std`` unless a module has
    its own: the projections between embedder, block decoder and token decoder, and all of a T5 decoder.
    ``depth_scaled``: in the two matrices of a GPT-NeoX layer that add to its input, ``std`` / sqrt(2 layers of its
    stack) (GPT-2, NeoX).
    """
    generator = torch.Generator().manual_seed(seed)
    deviations = _deviations(model, std, depth_scaled)
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


def _deviations(model: LanguageModel, std: float, depth_scaled: bool) -> dict[nn.Module, Tensor | float]:
    deviations: dict[nn.Module, Tensor | float] = {}
    for module in model.modules():
        if isinstance(module, OwnDeviations):
            deviations |= module.initial_deviations()
        if depth_scaled and isinstance(module, Stack):
            deviations |= _depth_scaled(module, std)
    return deviations


def _depth_scaled(stack: Stack, std: float) -> dict[nn.Module, Tensor | float]:
    """So that the sum of a stack's outputs is as large as one layer's, whatever its depth."""
    outputs: dict[nn.Module, Tensor | float] = {}
    for layer in stack.layers:
        assert isinstance(layer, Layer)
        outputs |= dict.fromkeys(
            (layer.attention_output, layer.feed_forward_out), std * (2 * len(stack.layers)) ** -0.5
        )
    return outputs
