"""A model from its configuration, and its initial weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.block_transformer import BlockTransformer
from pipeline.models.config import BlockConfig, ModelConfig
from pipeline.models.language_model import LanguageModel
from pipeline.models.token_decoders import TokenDecoder
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
def initialise(model: LanguageModel, seed: int) -> None:
    """Draw every weight anew, as the published code does; the same on every device.

    Norms are 1 and 0, biases 0, matrices and tables normal: standard deviation 0.02, but 1 / sqrt(inputs) for the
    projections between embedder, block decoder and token decoder.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                parameter.zero_()
            elif isinstance(module, nn.LayerNorm):
                parameter.fill_(1.0)
            else:
                parameter.copy_(_normal(parameter, 0.02, generator))
    if isinstance(model, BlockTransformer):
        for linear in _projections(model):
            linear.weight.copy_(_normal(linear.weight, linear.in_features**-0.5, generator))


def _normal(parameter: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    return torch.empty(parameter.shape).normal_(0.0, deviation, generator=generator)


def _projections(model: BlockTransformer) -> list[nn.Linear]:
    assert isinstance(model.token_decoder, TokenDecoder)
    return [model.token_decoder.expansion]
