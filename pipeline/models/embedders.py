"""Embedders: L tokens become one block embedding (paper, section 2.2 and appendix F.1).

All of them map tokens [B, N, L] and their validity [B, N, L] (``None``: all valid) to block embeddings [B, N, D].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.models.block_config import BlockConfig
from pipeline.models.embedder_config import ClsConfig, RobertaConfig
from pipeline.models.roberta import RobertaEncoder

CLS_TOKEN = 0


class Embedder(nn.Module):
    """Base of the embedders. ``projection`` maps the concatenated token vectors to D; lookup has none."""

    projection: nn.Linear | None

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """The projection's is 1 / sqrt(inputs)."""
        return {} if self.projection is None else {self.projection: self.projection.in_features**-0.5}


class LookupEmbedder(Embedder):
    """Concatenates the table rows of a block's tokens, each D / L wide. Padding is embedded as the token it holds."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.embedder.width)
        self.projection = None

    def forward(self, blocks: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, N, L] -> [B, N, D]."""
        rows: Tensor = self.embedding(blocks)
        return rows.flatten(2)


class ProjectionEmbedder(Embedder):
    """Projects the concatenated table rows to D, whatever their width: the form that uptraining starts from."""

    projection: nn.Linear

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        width = config.embedder.width
        self.embedding = nn.Embedding(config.vocabulary, width)
        self.projection = nn.Linear(config.block_length * width, config.block_decoder.width)

    def forward(self, blocks: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, N, L] -> [B, N, D]."""
        projected: Tensor = self.projection(self.embedding(blocks).flatten(2))
        return projected


class EncoderEmbedder(Embedder):
    """Encodes each block with RoBERTa and projects the concatenated outputs to D.

    With ``cls_tokens`` = n, n leading tokens are added and their outputs alone are projected.
    """

    projection: nn.Linear

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        embedder = config.embedder
        assert isinstance(embedder, RobertaConfig)
        self.cls_tokens = embedder.cls_tokens if isinstance(embedder, ClsConfig) else 0
        self.encoder = RobertaEncoder(config.vocabulary, embedder.stack, embedder.padding_token)
        self.projection = nn.Linear(embedder.outputs(config.block_length), config.block_decoder.width)

    def forward(self, blocks: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, N, L] -> [B, N, D]; padding is no key of the encoder."""
        tokens = blocks.flatten(0, 1)
        keys = None if valid is None else valid.flatten(0, 1)
        if self.cls_tokens:
            leading = tokens.new_full((len(tokens), self.cls_tokens), CLS_TOKEN)
            tokens = torch.cat([leading, tokens], dim=1)
            keys = None if keys is None else torch.cat([torch.ones_like(leading, dtype=torch.bool), keys], dim=1)
        encoded = self.encoder(tokens, keys)
        outputs = encoded[:, : self.cls_tokens] if self.cls_tokens else encoded
        projected: Tensor = self.projection(outputs.flatten(1))
        return projected.view(*blocks.shape[:2], -1)


EMBEDDERS: dict[str, Callable[[BlockConfig], Embedder]] = {
    "lookup": LookupEmbedder,
    "projection": ProjectionEmbedder,
    "roberta": EncoderEmbedder,
    "cls": EncoderEmbedder,
}
"""The module of each kind in :data:`pipeline.models.embedder_config.CONFIGS`."""
