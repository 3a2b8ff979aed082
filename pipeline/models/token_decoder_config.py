"""Token decoders as data: how a block's tokens follow from the context embedding before it (paper, section 2.4).

A kind is a frozen config, with what it costs, and the keys that a study gives it. L is the block length, D the block
decoder's width; costs are a block's. The vocabulary's tables are not the token decoder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pipeline.base.made_of import added
from pipeline.models.parts import Keys, Part, check_counts, kind_named
from pipeline.models.stack_config import LayersConfig, StackConfig

T5_BUCKETS = 32


@dataclass(frozen=True)
class T5Config(LayersConfig):
    """A T5 decoder: RMS norms, no biases, a table of relative positions, and cross-attention in every layer."""

    norm_eps: float = 1e-6

    @property
    def cross_matrices(self) -> tuple[int, int]:
        """Entries of one layer's cross-attention matrices: applied to every token, and to every slot."""
        return 2 * self.width * self.width, 2 * self.width * self.key_width

    @property
    def matrices(self) -> int:
        return super().matrices + self.layers * sum(self.cross_matrices)

    @property
    def layer_vectors(self) -> int:
        """The scales of three norms."""
        return 3 * self.width

    @property
    def parameters(self) -> int:
        """The layers', the final norm's, and the table of relative positions."""
        return super().parameters + self.width + T5_BUCKETS * self.heads

    def cross_flops(self, tokens: int, slots: int) -> float:
        """Cross-attention of that many tokens to that many slots, with its matrices' products."""
        by_token, by_slot = self.cross_matrices
        products = 2 * self.layers * (by_token * tokens + by_slot * slots)
        return products + 4 * self.layers * self.width * tokens * slots

    def cross_kept(self, tokens: int, slots: int) -> int:
        """Numbers that cross-attention keeps for the backward pass."""
        return self.layers * (4 * self.width * tokens + 2 * self.key_width * slots)


class TokenDecoderConfig(Part):
    """Base of the token decoders. ``tied``: the vocabulary's head is the table of the input embeddings."""

    kind: ClassVar[str]
    FORM: ClassVar[Mapping[str, Any]] = {"kind": None, "stack": None, "prefix_length": 0}

    stack: LayersConfig
    tied: bool

    @classmethod
    def kind_of(cls, values: dict[str, Any]) -> type[Self]:
        kind = kind_named(CONFIGS, "token decoder kind", values.get("kind"))
        assert issubclass(kind, cls)
        return kind

    def slots(self, block_length: int) -> int:
        """Vectors that a context embedding becomes."""
        return block_length

    def positions(self, block_length: int) -> int:
        """Positions that the stack sees."""
        return block_length

    def cached_positions(self, block_length: int) -> int:
        """Positions whose keys and values are kept while a block is decoded."""
        return self.positions(block_length) + self.carried(block_length)

    def carried(self, block_length: int) -> int:
        """Positions of the block before whose keys and values it goes on seeing."""
        return 0

    @property
    def recent(self) -> int:
        """Tokens before a block whose embeddings it looks at."""
        return 0

    @property
    def seen(self) -> int:
        """Context embeddings that it looks at."""
        return 1

    def history(self, block_length: int) -> int:
        """Blocks that it looks at before the one whose context it decodes."""
        return max(-(-self.recent // block_length), self.seen) - 1

    @property
    def remembered(self) -> int:
        """Numbers that every block leaves to be looked up; 0: nothing."""
        return 0

    def remembering(self, block_length: int) -> int:
        """Entries of the matrix that makes a block's memory, used once per block."""
        return 0

    @property
    def looking_up(self) -> int:
        """Entries of the matrices of looking up, each used once per token."""
        return 0

    def memory_flops(self, block_length: int, blocks: float, pairs: float) -> float:
        """FLOPs of the memories of ``blocks`` blocks and of their tokens' looking up ``pairs`` of block and memory."""
        return 0.0

    def expansion(self, block_length: int, block_width: int) -> int:
        """Entries of the matrices that make a block's slots, each used once per block."""
        return block_width * self.slots(block_length) * self.stack.width

    def parameters(self, block_length: int, block_width: int) -> int:
        """Parameters beside the vocabulary's table and head."""
        biases = self.slots(block_length) * self.stack.width
        return self.expansion(block_length, block_width) + biases + self.stack.parameters

    def flops(self, block_length: int, block_width: int, causal: bool) -> float:
        """FLOPs of a block, head left out; ``causal``: only the pairs of query and key that the mask leaves."""
        positions = self.positions(block_length)
        own = positions * (positions + 1) / 2 if causal else positions * positions
        pairs = own + positions * self.carried(block_length)
        return 2 * self.expansion(block_length, block_width) + self.stack.flops(positions, pairs)

    def decode_flops(self, block_length: int, block_width: int) -> float:
        """FLOPs that a block's tokens cannot do without, head left out."""
        return self.flops(block_length, block_width, causal=True)

    def prefill_flops(self, block_length: int, block_width: int, blocks: int) -> float:
        """FLOPs of what decoding needs of a prompt of ``blocks`` blocks beside their contexts."""
        return 0.0

    def kept(self, block_length: int) -> int:
        """Numbers that a block keeps for the backward pass."""
        return self.positions(block_length) * self.stack.kept + self.carried(block_length) * self.stack.cached


@dataclass(frozen=True)
class NeoxDecoderConfig(TokenDecoderConfig):
    """Base of the token decoders that are a causal stack, with a head of its own unless ``tied``."""

    stack: StackConfig
    tied: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class PrefixConfig(NeoxDecoderConfig):
    """``prefix_length`` slots stand before the tokens, of which the last is no input.

    Each of the last ``contexts`` context embeddings has such slots, the newest stand last. The ``local`` tokens before
    the block stand before all slots; with ``mix`` they have no positions, and a matrix adds their embeddings to the
    newest context's slots instead. With ``carry`` every layer goes on seeing the keys and values of the tokens of the
    block before (MEGABYTE's cross-patch attention, arXiv 2305.07185, section 2.3.2); its last token, which was no
    input there, stands before all slots. With ``memory`` every block leaves so many numbers for each
    of ``memory_layers`` layers from the middle on, before which all later tokens look at them
    (:class:`pipeline.models.memory.MemoryAttention`).
    """

    kind: ClassVar[str] = "prefix"

    prefix_length: int
    local: int = 0
    mix: bool = False
    contexts: int = 1
    carry: bool = False
    memory: int = 0
    memory_layers: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "prefix_length", "contexts", "memory_layers")
        check_counts(self, "local", "memory", least=0)
        if self.mix and not self.local:
            raise ValueError("token_decoder.mix adds the last token_decoder.local tokens to the prefix; give local too")
        if self.carry and self.local:
            raise ValueError(
                f"token_decoder.local {self.local} does not go with carry, by which all tokens of the block before are "
                "seen; leave one of them out"
            )
        if self.looking.stop > self.stack.layers:
            there = self.stack.layers - self.looking.start
            raise ValueError(
                f"token_decoder.memory_layers {self.memory_layers} is more than the {there} layers from the middle of "
                f"{self.stack.layers} on"
            )
        if self.memory_layers > 1 and not self.memory:
            raise ValueError("token_decoder.memory_layers look at memories; give memory too")
        if self.carry and self.memory:
            raise ValueError(
                f"token_decoder.memory {self.memory} does not go with carry: a prompt's last blocks, whose keys are "
                "carried, would have to look up too; leave one of them out"
            )

    def carried(self, block_length: int) -> int:
        return block_length - 1 if self.carry else 0

    @property
    def recent(self) -> int:
        return 1 if self.carry else self.local

    @property
    def seen(self) -> int:
        return self.contexts

    @property
    def local_positions(self) -> int:
        """Positions of tokens before the block."""
        return 0 if self.mix else self.recent

    @property
    def before(self) -> int:
        """Positions before the block's own tokens."""
        return self.local_positions + self.contexts * self.prefix_length

    @property
    def looking(self) -> range:
        """Layers before which tokens look at memories."""
        middle = self.stack.layers // 2
        return range(middle, middle + self.memory_layers if self.memory else middle)

    @property
    def remembered(self) -> int:
        return len(self.looking) * self.memory

    def remembering(self, block_length: int) -> int:
        return (block_length + 1) * self.stack.width * self.remembered

    @property
    def looking_up(self) -> int:
        return 2 * self.stack.width * self.stack.heads * self.remembered

    def memory_flops(self, block_length: int, blocks: float, pairs: float) -> float:
        products = self.remembering(block_length) + block_length * self.looking_up
        return 2 * blocks * products + 4 * block_length * self.stack.heads * self.remembered * pairs

    def parameters(self, block_length: int, block_width: int) -> int:
        norms = len(self.looking) * (self.memory + (2 if self.stack.centred else 1) * self.stack.width)
        own = super().parameters(block_length, block_width)
        return own + self.remembering(block_length) + self.looking_up + norms

    @property
    def mixed(self) -> int:
        """Numbers that the mixing matrix reads."""
        return self.local * self.stack.width if self.mix else 0

    def history(self, block_length: int) -> int:
        """Each layer sees one block further back, where keys are carried."""
        return super().history(block_length) + (self.stack.layers if self.carried(block_length) else 0)

    def slots(self, block_length: int) -> int:
        return self.prefix_length

    def positions(self, block_length: int) -> int:
        return self.before + block_length - 1

    def expansion(self, block_length: int, block_width: int) -> int:
        return (block_width + self.mixed) * self.slots(block_length) * self.stack.width

    def decode_flops(self, block_length: int, block_width: int) -> float:
        unread = self.before - 1
        carried = 4 * self.stack.query_width * unread * self.carried(block_length)
        return super().decode_flops(block_length, block_width) - self.stack.unread_flops(unread) - carried

    def prefill_flops(self, block_length: int, block_width: int, blocks: int) -> float:
        """The last layer's carried keys need one block, those of the layer before one more."""
        if not self.carried(block_length):
            return 0.0
        layers = self.stack.layers
        depths = range(max(layers - (blocks - 1), 0), layers)
        return sum(self._flops_to_keys(block_length, block_width, depth) for depth in depths)

    def _flops_to_keys(self, block_length: int, block_width: int, depth: int) -> float:
        """FLOPs of a known block up to the keys and values of its tokens in layer ``depth``."""
        keys = 4 * self.stack.width * self.stack.key_width * (block_length - 1)
        if not depth:
            return keys
        unread = self.stack.unread_flops(self.before)
        unread += 4 * self.stack.query_width * self.before * self.carried(block_length)
        expansion = 2 * self.expansion(block_length, block_width)
        whole = self.flops(block_length, block_width, causal=True) - expansion
        return expansion + whole * depth / self.stack.layers - unread + keys

    def kept(self, block_length: int) -> int:
        return super().kept(block_length) + self.mixed + self._memory_kept(block_length)

    def _memory_kept(self, block_length: int) -> int:
        """A memory's inputs, and itself before and after its norm; a position's norm, query, and attention's output."""
        by_token = 2 * self.stack.width + 2 * self.stack.heads * self.memory
        by_block = (block_length + 1) * self.stack.width + 2 * self.memory
        return len(self.looking) * (by_block + block_length * by_token)


@dataclass(frozen=True)
class SummationConfig(NeoxDecoderConfig):
    """One slot is added to each input position."""

    kind: ClassVar[str] = "summation"


@dataclass(frozen=True)
class CrossAttentionConfig(TokenDecoderConfig):
    """A T5 decoder that attends to L slots; its head is its input table."""

    kind: ClassVar[str] = "cross_attention"

    stack: T5Config
    tied: bool = field(default=True, init=False)

    def cached_positions(self, block_length: int) -> int:
        return block_length + self.slots(block_length)

    def flops(self, block_length: int, block_width: int, causal: bool) -> float:
        cross = self.stack.cross_flops(block_length, self.slots(block_length))
        return super().flops(block_length, block_width, causal) + cross

    def kept(self, block_length: int) -> int:
        return super().kept(block_length) + self.stack.cross_kept(block_length, self.slots(block_length))


CONFIGS: dict[str, type[TokenDecoderConfig]] = {
    config.kind: config for config in (PrefixConfig, SummationConfig, CrossAttentionConfig)
}


@dataclass(frozen=True)
class StackKeys:
    """What a size or a variant changes in one decoder's stack; ``None`` takes the size's own."""

    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    feed_forward: int | None = None


@dataclass(frozen=True)
class BlockDecoderKeys(StackKeys):
    """What a size or a variant changes in the block decoder: also how many blocks its layers see, and which see all."""

    window: int | None = added(None)
    global_every: int | None = added(None)


@dataclass(frozen=True)
class TokenDecoderKeys(StackKeys, Keys):
    """A study's keys of a token decoder: its stack's, and those of its kind."""

    kind: str = "prefix"

    @classmethod
    def kinds(cls) -> Mapping[str, type[TokenDecoderKeys]]:
        return TOKEN_DECODERS

    def config(self, stack: StackConfig) -> TokenDecoderConfig:
        """The token decoder that these keys mean, of a stack of that shape."""
        raise NotImplementedError


@dataclass(frozen=True)
class PrefixKeys(TokenDecoderKeys):
    """How many slots of how many contexts stand before the tokens; which tokens before the block are seen, and how."""

    prefix_length: int = 2
    local: int = added(0)
    mix: bool = added(False)
    contexts: int = added(1)
    carry: bool = added(False)
    memory: int = added(0)
    memory_layers: int = added(1)

    def config(self, stack: StackConfig) -> TokenDecoderConfig:
        return PrefixConfig(
            stack,
            self.prefix_length,
            self.local,
            self.mix,
            self.contexts,
            self.carry,
            self.memory,
            self.memory_layers,
        )


@dataclass(frozen=True)
class SummationKeys(TokenDecoderKeys):
    """None beside the stack's: there is a slot a token."""

    kind: str = "summation"

    def config(self, stack: StackConfig) -> TokenDecoderConfig:
        return SummationConfig(stack)


@dataclass(frozen=True)
class CrossAttentionKeys(TokenDecoderKeys):
    """None beside the stack's: there are as many slots as tokens."""

    kind: str = "cross_attention"

    def config(self, stack: StackConfig) -> TokenDecoderConfig:
        return CrossAttentionConfig(
            T5Config(stack.layers, stack.width, stack.heads, stack.kv_heads, stack.feed_forward)
        )


TOKEN_DECODERS: dict[str, type[TokenDecoderKeys]] = {
    "prefix": PrefixKeys,
    "summation": SummationKeys,
    "cross_attention": CrossAttentionKeys,
}
