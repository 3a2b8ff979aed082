"""The Block Transformer as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.models.embedder_config import EmbedderConfig
from pipeline.models.family_config import ModelConfig
from pipeline.models.parts import check_counts
from pipeline.models.stack_config import LayersConfig, StackConfig
from pipeline.models.token_decoder_config import TokenDecoderConfig


@dataclass(frozen=True)
class BlockConfig(ModelConfig):
    """A Block Transformer: embedder, block decoder, token decoder."""

    family: ClassVar[str] = "block"
    FORM: ClassVar[Mapping[str, Any]] = dict.fromkeys(
        ("vocabulary", "context_length", "block_length", "embedder", "block_decoder", "token_decoder", "family")
    )

    block_length: int
    embedder: EmbedderConfig
    block_decoder: StackConfig
    token_decoder: TokenDecoderConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "block_length")
        self.embedder.check(*self._shape)
        blocks = self._blocks(self.context_length)
        if self.token_decoder.seen > max(blocks - 1, 1):
            raise ValueError(
                f"token_decoder.contexts {self.token_decoder.seen} is more than the {blocks - 1} blocks that precede "
                f"the last one of {self.context_length} tokens in blocks of {self.block_length}"
            )

    @property
    def stride(self) -> int:
        return self.block_length

    @property
    def slots(self) -> int:
        """Vectors that a context embedding becomes in the token decoder."""
        return self.token_decoder.slots(self.block_length)

    @property
    def carried(self) -> int:
        """Tokens of the block before whose keys and values the token decoder goes on seeing."""
        return self.token_decoder.carried(self.block_length)

    @property
    def history(self) -> int:
        """Blocks before a block that its embedding, or decoding what follows it, depends on; block decoder aside."""
        length = self.block_length
        blocks = self._blocks(self.context_length) - 1 if self.token_decoder.remembered else 0
        return max(self.embedder.history(length), self.token_decoder.history(length), blocks)

    @property
    def recent(self) -> int:
        """Tokens before a block that decoding and embedding it need."""
        remembered = self.block_length + 1 if self.token_decoder.remembered else 0
        return max(self.embedder.recent(self.block_length), self.token_decoder.recent, remembered)

    @property
    def decoders(self) -> tuple[LayersConfig, ...]:
        return (self.block_decoder, self.token_decoder.stack)

    @property
    def stacks(self) -> tuple[LayersConfig, ...]:
        return (*self.embedder.stacks, *self.decoders)

    @property
    def layer_matrices(self) -> int:
        decoder = self.token_decoder
        return super().layer_matrices + decoder.remembering(self.block_length) + decoder.looking_up

    @property
    def _shape(self) -> tuple[int, int]:
        """What the parts' costs depend on."""
        return self.block_length, self.block_decoder.width

    def parameters(self) -> dict[str, int]:
        return {
            "embedding": self.vocabulary * (self.embedder.width + self.token_decoder.stack.width),
            "embedder": self.embedder.parameters(*self._shape),
            "block_decoder": self.block_decoder.parameters,
            "token_decoder": self.token_decoder.parameters(*self._shape),
            "head": 0 if self.token_decoder.tied else self.head,
        }

    def forward_flops(self, length: int, causal: bool = False) -> float:
        blocks = self._blocks(length) - 1
        pairs = self.block_decoder.causal_pairs(blocks) if causal else self.block_decoder.computed_pairs(blocks)
        looked_up = blocks * (blocks + 1) / 2 if causal else blocks * blocks
        by_block = self.embedder.flops(*self._shape) + self.token_decoder.flops(*self._shape, causal=causal)
        predicted = length - self.block_length
        memory = self.token_decoder.memory_flops(self.block_length, blocks, looked_up)
        return self.block_decoder.flops(blocks, pairs) + blocks * by_block + memory + 2 * self.head * predicted

    def prefill_flops(self, prompt: int) -> float:
        blocks = self._blocks(prompt)
        over_blocks = self.block_decoder.flops(blocks, self.block_decoder.causal_pairs(blocks))
        over_blocks -= self.block_decoder.unread_flops(max(blocks - self.token_decoder.seen, 0))
        first_token = self.token_decoder.decode_flops(*self._shape) / self.block_length + 2 * self.head
        first_token += self._memory_flops(blocks)
        before = self.token_decoder.prefill_flops(*self._shape, blocks)
        before += 2 * (blocks - 1) * self.token_decoder.remembering(self.block_length)
        return over_blocks + blocks * self.embedder.flops(*self._shape) + before + first_token

    def _memory_flops(self, memories: float) -> float:
        """Of a token that looks at so many memories; a block's own one is made once."""
        return self.token_decoder.memory_flops(self.block_length, 1, memories) / self.block_length

    def decode_flops(self, position: int) -> float:
        blocks = position // self.block_length
        step = self.block_decoder.flops(1, self.block_decoder.keys(blocks)) + self.embedder.flops(*self._shape)
        step += self.token_decoder.decode_flops(*self._shape)
        return step / self.block_length + self._memory_flops(blocks) + 2 * self.head

    def decode_parameters(self) -> float:
        count, once = self.parameters(), self.token_decoder.expansion(*self._shape)
        once += self.token_decoder.remembering(self.block_length)
        by_block = count["embedder"] + count["block_decoder"] + once
        return by_block / self.block_length + count["token_decoder"] - once + self.head

    def cached(self, length: int) -> int:
        blocks = self._blocks(length)
        over_blocks = round(self.block_decoder.cached * self.block_decoder.keys(blocks))
        return over_blocks + self.token_decoder.remembered * blocks + self._cached_in_block

    @property
    def cached_per_token(self) -> float:
        return (self.block_decoder.cached + self.token_decoder.remembered) / self.block_length

    def cached_read(self, position: int) -> float:
        """All memories are read once for every token, and so is what the token decoder has cached of the block by then.

        A block's last token reads all that is cached of it, and each token before one position less.
        """
        blocks, length = position // self.block_length, self.block_length
        over_blocks = self.block_decoder.cached * self.block_decoder.keys(blocks) / length
        in_block = self._cached_in_block - self.token_decoder.stack.cached * (length - 1) / 2
        return over_blocks + self.token_decoder.remembered * blocks + in_block

    @property
    def kept_per_token(self) -> float:
        of_block = self.block_decoder.kept + self.token_decoder.kept(self.block_length)
        return (of_block + self.embedder.kept(*self._shape)) / self.block_length

    @property
    def _cached_in_block(self) -> int:
        return self.token_decoder.stack.cached * self.token_decoder.cached_positions(self.block_length)

    def _blocks(self, length: int) -> int:
        return -(-length // self.block_length)
