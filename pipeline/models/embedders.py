"""Embedders: L tokens become one block embedding (paper, section 2.2 and appendix F.1)."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.models.config import BlockConfig


class LookupEmbedder(nn.Module):
    """Concatenates the table rows of a block's tokens, each D / L wide. Padding is embedded as the token it holds."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.embedder.width)

    def forward(self, blocks: Tensor, valid: Tensor | None = None) -> Tensor:
        """Tokens [B, N, L] -> block embeddings [B, N, D]; ``valid`` [B, N, L] changes nothing here."""
        rows: Tensor = self.embedding(blocks)
        return rows.flatten(2)


def build_embedder(config: BlockConfig) -> nn.Module:
    """The embedder that ``config.embedder.kind`` names."""
    return LookupEmbedder(config)
