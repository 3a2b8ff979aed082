"""The vanilla transformer: a decoder over tokens."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.models.family_config import VanillaConfig
from pipeline.models.language_model import LanguageModel
from pipeline.models.layers import Stack


class VanillaTransformer(LanguageModel):
    """Token embedding, layers, vocabulary head without bias, which may be the embedding."""

    config: VanillaConfig

    def __init__(self, config: VanillaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.stack.width)
        self.stack = Stack(config.stack)
        self.head = None if config.tied else nn.Linear(config.stack.width, config.vocabulary, bias=False)

    @property
    def head_weight(self) -> Tensor:
        return self.embedding.weight if self.head is None else self.head.weight

    def hidden(self, tokens: Tensor, valid: Tensor | None = None, *, padded_blocks: bool = True) -> Tensor:
        seen = tokens[:, :-1]
        if valid is not None:
            valid = valid[:, :-1] if padded_blocks else None
        hidden: Tensor = self.stack(self.embedding(seen), valid)
        return hidden

    def branch(
        self,
        prefixes: Tensor,
        lengths: Tensor,
        continuations: Tensor,
        prefix_index: Tensor,
        valid: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        assert valid is None
        return self.stack.branch(self.embedding(prefixes), lengths, self.embedding(continuations[:, :-1]), prefix_index)
