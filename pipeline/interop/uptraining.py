"""Uptraining: the weights of a block transformer that is made of a vanilla one (paper, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.block_transformer import BlockTransformer
from pipeline.models.language_model import LanguageModel
from pipeline.models.token_decoders import NeoxTokenDecoder, PrefixTokenDecoder
from pipeline.models.uptraining import check_uptraining, inherited_layers
from pipeline.models.vanilla import VanillaTransformer


@torch.no_grad()
def uptrain_from(model: LanguageModel, source: LanguageModel, method: str = "partition") -> None:
    """Give ``model``, a block transformer, the weights of the vanilla ``source``.

    ``method`` says where the source's layers go: ``partition`` (lower ones to the block decoder, the others to the
    token decoder), ``skip`` (every other one to both) or ``duplicate`` (all to both). Both vocabulary tables and the
    head are the source's, the embedder's projection is the mean of a block's embeddings, and every slot is a copy of
    the context embedding, to which local tokens are mixed with zeros. The block decoder's final norm stays as it is.
    Raises :class:`UserError` where the two do not fit.
    """
    check_uptraining(model.config, source.config, method)
    assert isinstance(model, BlockTransformer)
    assert isinstance(source, VanillaTransformer)
    decoder = model.token_decoder
    assert isinstance(decoder, NeoxTokenDecoder)
    block_layers, token_layers = inherited_layers(source.config.stack.layers, model.config, method)
    _copy_layers(source, block_layers, model.block_decoder.layers)
    _copy_layers(source, token_layers, decoder.stack.layers)
    decoder.stack.norm.load_state_dict(source.stack.norm.state_dict())
    for table in (model.embedder.get_parameter("embedding.weight"), decoder.embedding.weight):
        table.copy_(source.embedding.weight)
    if decoder.head is not None:
        decoder.head.weight.copy_(source.head_weight)
    identity = torch.eye(model.config.block_decoder.width)
    if model.embedder.projection is not None:
        _fill(model.embedder.projection, (identity / model.stride).repeat(1, model.stride))
    _fill(decoder.expansion, identity.repeat(model.config.slots, 1))
    if isinstance(decoder, PrefixTokenDecoder) and decoder.mixing is not None:
        decoder.mixing.weight.zero_()


def _copy_layers(source: VanillaTransformer, chosen: list[int], layers: nn.ModuleList) -> None:
    for index, layer in zip(chosen, layers, strict=True):
        layer.load_state_dict(source.stack.layers[index].state_dict())


def _fill(linear: nn.Linear, weight: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.zero_()
