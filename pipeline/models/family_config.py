"""What a model of either family is as data, and the vanilla family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.models.parts import Part, check_counts
from pipeline.models.stack_config import LayersConfig, StackConfig


@dataclass(frozen=True)
class ModelConfig(Part):
    """A language model's architecture and what it costs: parameters, FLOPs (two a multiply-add), numbers kept."""

    family: ClassVar[str]

    vocabulary: int
    context_length: int

    def __post_init__(self) -> None:
        check_counts(self, "vocabulary", "context_length")

    @property
    def stride(self) -> int:
        """Positions that the model advances at once, and the first that it predicts: 1, or the block length."""
        raise NotImplementedError

    @property
    def decoders(self) -> tuple[LayersConfig, ...]:
        """The stacks from the first that sees earlier positions to the one under the vocabulary head."""
        raise NotImplementedError

    @property
    def stacks(self) -> tuple[LayersConfig, ...]:
        """All stacks, an encoder's too."""
        return self.decoders

    @property
    def layer_matrices(self) -> int:
        """Entries of the matrices of all layers."""
        return sum(stack.matrices for stack in self.stacks)

    @property
    def head(self) -> int:
        """Entries of the matrix that makes logits of hidden states."""
        return self.vocabulary * self.decoders[-1].width

    def parameters(self) -> dict[str, int]:
        """Parameters by group; groups without any may be left out."""
        raise NotImplementedError

    def forward_flops(self, length: int, causal: bool = False) -> float:
        """One training pass forward over ``length`` tokens, logits of all predicted positions included.

        ``causal``: only the pairs of query and key that a mask leaves, of all causal attention.
        """
        raise NotImplementedError

    def prefill_flops(self, prompt: int) -> float:
        """FLOPs until the first new token after a prompt of that many tokens is known."""
        raise NotImplementedError

    def decode_flops(self, position: int) -> float:
        """FLOPs of a new token after ``position`` others; a block transformer's mean over the tokens of a block."""
        raise NotImplementedError

    def decode_parameters(self) -> float:
        """Parameters that a decode step reads, for the whole batch at once; a mean over the tokens of a block."""
        raise NotImplementedError

    def cached(self, length: int) -> int:
        """Numbers kept as keys and values of a sequence of ``length`` tokens, the token decoder's own few included."""
        raise NotImplementedError

    @property
    def cached_per_token(self) -> float:
        """Numbers that keys and values of a further token of a sequence are."""
        raise NotImplementedError

    def cached_read(self, position: int) -> float:
        """Of the numbers kept as keys and values, those read to decode a token after ``position`` others."""
        raise NotImplementedError

    @property
    def kept_per_token(self) -> float:
        """Numbers that a training pass keeps for the backward pass, a token; an estimate, without the logits."""
        raise NotImplementedError


@dataclass(frozen=True)
class VanillaConfig(ModelConfig):
    """A decoder over tokens (the paper's vanilla transformer). ``tied``: its head is the table of its inputs."""

    family: ClassVar[str] = "vanilla"
    FORM: ClassVar[Mapping[str, Any]] = dict.fromkeys(("vocabulary", "context_length", "stack", "family"))

    stack: StackConfig
    tied: bool = False

    @property
    def stride(self) -> int:
        return 1

    @property
    def decoders(self) -> tuple[LayersConfig, ...]:
        return (self.stack,)

    def parameters(self) -> dict[str, int]:
        own_head = 0 if self.tied else self.head
        return {"embedding": self.head, "token_decoder": self.stack.parameters, "head": own_head}

    def forward_flops(self, length: int, causal: bool = False) -> float:
        seen = length - 1
        pairs = self.stack.causal_pairs(seen) if causal else self.stack.computed_pairs(seen)
        return self.stack.flops(seen, pairs) + 2 * self.head * seen

    def prefill_flops(self, prompt: int) -> float:
        needed = self.stack.flops(prompt, self.stack.causal_pairs(prompt)) - self.stack.unread_flops(prompt - 1)
        return needed + 2 * self.head

    def decode_flops(self, position: int) -> float:
        return self.stack.flops(1, self.stack.keys(position)) + 2 * self.head

    def decode_parameters(self) -> float:
        return self.stack.parameters + self.head

    def cached(self, length: int) -> int:
        return round(self.stack.cached * self.stack.keys(length))

    @property
    def cached_per_token(self) -> float:
        return self.stack.cached

    def cached_read(self, position: int) -> float:
        return self.stack.cached * self.stack.keys(position)

    @property
    def kept_per_token(self) -> float:
        return self.stack.kept
