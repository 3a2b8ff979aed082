"""Models that know what follows, for the probes."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from pipeline.models import LanguageModel


class Oracle(LanguageModel):
    """Logits are its hidden states; a text that goes on is read anew from its beginning."""

    def __init__(self, stride: int, vocabulary: int, context_length: int) -> None:
        super().__init__()
        shape = SimpleNamespace(stride=stride, vocabulary=vocabulary, context_length=context_length)
        self.config = shape  # type: ignore[assignment]
        self.head = nn.Parameter(torch.eye(vocabulary))

    @property
    def head_weight(self) -> Tensor:
        return self.head

    def branch(
        self,
        prefixes: Tensor,
        lengths: Tensor,
        continuations: Tensor,
        prefix_index: Tensor,
        valid: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        read = []
        for own, group in zip(continuations, prefix_index.tolist(), strict=True):
            before = prefixes[group, : int(lengths[group]) * self.config.stride]
            read.append(self.hidden(torch.cat([before, own])[None])[0, len(before) :])
        return torch.stack(read)
