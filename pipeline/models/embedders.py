"""Embedders: L tokens become one block embedding (paper, section 2.2 and appendix F.1).

All of them map tokens [B, N, L] and their validity [B, N, L] (``None``: all valid) to block embeddings [B, N, D].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.models.block_config import BlockConfig
from pipeline.models.embedder_config import ClsConfig, RobertaConfig, TableConfig
from pipeline.models.roberta import RobertaEncoder
from pipeline.models.windows import windows_before

CLS_TOKEN = 0


class Embedder(nn.Module):
    """Base of the embedders. ``projection`` maps the concatenated token vectors to D; lookup has none."""

    projection: nn.Linear | None

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """The projection's is 1 / sqrt(inputs)."""
        return {} if self.projection is None else {self.projection: self.projection.in_features**-0.5}


class Convolution(nn.Module):
    """Adds to a row matrices on it and on the rows of the tokens before it: a causal convolution (MEGABYTE, 2.3.1).

    What precedes the first token, and padding, counts as 0. The matrices start as 0.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.matrices = nn.Linear(size * width, width, bias=False)

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """None: the matrices are 0."""
        return {self.matrices: 0.0}

    def forward(self, rows: Tensor, valid: Tensor | None) -> Tensor:
        """Rows [B, N, L, w] of N blocks, the oldest of a window first in the matrices' columns."""
        known = rows if valid is None else rows * valid[..., None]
        windows = windows_before(known.flatten(1, 2), self.size, step=1, first=1)
        convolved: Tensor = self.matrices(windows.flatten(2))
        return rows + convolved.view(rows.shape)


class TableEmbedder(Embedder):
    """Base of the embedders that make a block's embedding of its rows of a table."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        embedder = config.embedder
        assert isinstance(embedder, TableConfig)
        self.embedding = nn.Embedding(config.vocabulary, embedder.width)
        self.convolution = Convolution(embedder.width, embedder.convolution) if embedder.convolution else None

    def rows(self, blocks: Tensor, valid: Tensor | None) -> Tensor:
        """[B, N, L] -> [B, N, L, w]. Padding is embedded as the token it holds."""
        rows: Tensor = self.embedding(blocks)
        return rows if self.convolution is None else self.convolution(rows, valid)


class LookupEmbedder(TableEmbedder):
    """Concatenates the rows of a block's tokens, each D / L wide."""

    projection = None

    def forward(self, blocks: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, N, L] -> [B, N, D]."""
        return self.rows(blocks, valid).flatten(2)


class ProjectionEmbedder(TableEmbedder):
    """Projects the concatenated rows to D, whatever their width: the form that uptraining starts from."""

    projection: nn.Linear

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        self.projection = nn.Linear(config.block_length * config.embedder.width, config.block_decoder.width)

    def forward(self, blocks: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, N, L] -> [B, N, D]."""
        projected: Tensor = self.projection(self.rows(blocks, valid).flatten(2))
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


class Overlap(nn.Module):
    """Adds to a block's embedding a matrix on the block before's and its own, e(i) + W [e(i - 1), e(i)].

    e(i - 1) is 0 where no block precedes, or one of padding. W starts as 0, so that training begins with the embedder
    alone; with its part for e(i) a lookup embedder, which only concatenates, can mix the block's own tokens too.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.matrix = nn.Linear(2 * width, width, bias=False)

    def initial_deviations(self) -> dict[nn.Module, Tensor | float]:
        """None: the matrix is 0."""
        return {self.matrix: 0.0}

    def forward(self, embedded: Tensor, valid: Tensor | None) -> Tensor:
        """Block embeddings [B, N, D] -> [B, N, D]; ``valid`` [B, N, L] of their tokens."""
        known = embedded if valid is None else embedded * valid.any(-1, keepdim=True)
        return self.join(torch.cat([torch.zeros_like(known[:, :1]), known[:, :-1]], dim=1), embedded)

    def join(self, before: Tensor, own: Tensor) -> Tensor:
        """[..., D] of the block before and of the block itself -> [..., D]."""
        joined: Tensor = own + self.matrix(torch.cat([before, own], dim=-1))
        return joined


EMBEDDERS: dict[str, Callable[[BlockConfig], Embedder]] = {
    "lookup": LookupEmbedder,
    "projection": ProjectionEmbedder,
    "roberta": EncoderEmbedder,
    "cls": EncoderEmbedder,
}
"""The module of each kind in :data:`pipeline.models.embedder_config.CONFIGS`."""
