"""Architectures as frozen dataclasses. No torch here: planning and reporting read these without it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from pipeline.base.typed_json import build

EMBEDDERS = ("lookup", "projection", "roberta", "cls")
TOKEN_DECODERS = ("prefix", "summation", "cross_attention")
ENCODER_POSITIONS = 512
LARGEST = {"layers": 1000, "vocabulary": 2**31, "context_length": 2**31, "block_length": 2**31, "window": 2**63}
"""Far beyond any model, and small enough to build one without weights in a second; other numbers: a million."""


@dataclass(frozen=True)
class StackConfig:
    """A stack of transformer layers, GPT-NeoX style unless its user says otherwise.

    ``width`` is the hidden size, ``kv_heads < heads`` is grouped-query attention, ``window`` is the number of
    positions a query sees (itself included), ``None`` for all. RoBERTa and T5 stacks have no rotary positions.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    window: int | None = None
    rotary_fraction: float = 0.25
    rotary_base: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _check_counts(self, "layers", "width", "heads", "kv_heads", "feed_forward", "window")
        for name in ("rotary_fraction", "rotary_base", "norm_eps"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise ValueError(f"{name} {value!r} must be a number of at least 0")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")

    @property
    def head_width(self) -> int:
        """Width of a head, of queries as of keys."""
        return self.width // self.heads

    @property
    def rotary_width(self) -> int:
        """Leading dimensions of a head that are rotated (an even number)."""
        return int(self.head_width * self.rotary_fraction) // 2 * 2


@dataclass(frozen=True)
class VanillaConfig:
    """A GPT-NeoX decoder (the paper's vanilla transformer)."""

    vocabulary: int
    context_length: int
    stack: StackConfig
    family: str = "vanilla"

    def __post_init__(self) -> None:
        _check_counts(self, "vocabulary", "context_length")

    @property
    def first(self) -> int:
        """The first position of a sequence that the model predicts."""
        return 1


@dataclass(frozen=True)
class EmbedderConfig:
    """How L tokens become one block embedding (paper, section 2.2 and appendix F.1).

    kind: ``lookup`` concatenates L table rows of width D / L; ``projection`` projects L rows of ``width`` to D (the
    uptraining form); ``roberta`` runs a RoBERTa encoder over the block and projects its L outputs; ``cls`` the same
    with ``cls_tokens`` leading tokens, whose outputs alone are projected. ``stack`` is the encoder's, for the last two.
    ``padding_token`` is an id that the encoder takes for padding wherever it stands; only imported models have one.
    """

    kind: str
    width: int
    stack: StackConfig | None = None
    cls_tokens: int = 0
    padding_token: int | None = None

    def __post_init__(self) -> None:
        _check_counts(self, "width")
        _check_counts(self, "cls_tokens", least=0)
        if self.kind not in EMBEDDERS:
            raise ValueError(f"embedder kind {self.kind!r} is unknown; it is one of {', '.join(EMBEDDERS)}")
        encoder = self.kind in ("roberta", "cls")
        if encoder != (self.stack is not None):
            raise ValueError(f"embedder kind {self.kind!r} {'needs a' if encoder else 'has no'} stack")
        if self.stack is not None and self.stack.width != self.width:
            raise ValueError(f"the embedder's width {self.width} is not its encoder's, {self.stack.width}")
        if (self.kind == "cls") != (self.cls_tokens > 0):
            raise ValueError(f"embedder kind {self.kind!r} does not go with cls_tokens {self.cls_tokens}")

    @property
    def projects(self) -> bool:
        """Whether a matrix maps the vectors of a block's tokens to the block decoder's width."""
        return self.kind != "lookup"


@dataclass(frozen=True)
class TokenDecoderConfig:
    """How a block's tokens are decoded from the context embedding of the block before (paper, section 2.4).

    kind: ``prefix`` (``prefix_length`` slots before the tokens), ``summation`` (one slot added to each input
    position), ``cross_attention`` (a T5 decoder that attends to L slots).
    """

    kind: str
    stack: StackConfig
    prefix_length: int = 0

    def __post_init__(self) -> None:
        _check_counts(self, "prefix_length", least=0)
        if self.kind not in TOKEN_DECODERS:
            raise ValueError(f"token decoder kind {self.kind!r} is unknown; it is one of {', '.join(TOKEN_DECODERS)}")
        if (self.kind == "prefix") != (self.prefix_length > 0):
            raise ValueError(f"token decoder kind {self.kind!r} does not go with prefix_length {self.prefix_length}")


@dataclass(frozen=True)
class BlockConfig:
    """A Block Transformer: embedder, block decoder, token decoder."""

    vocabulary: int
    context_length: int
    block_length: int
    embedder: EmbedderConfig
    block_decoder: StackConfig
    token_decoder: TokenDecoderConfig
    family: str = "block"

    def __post_init__(self) -> None:
        _check_counts(self, "vocabulary", "context_length", "block_length")
        embedder, width = self.embedder, self.block_decoder.width
        if embedder.kind == "lookup" and embedder.width * self.block_length != width:
            raise ValueError(
                f"a lookup embedder of width {embedder.width} makes blocks of {self.block_length} tokens "
                f"{embedder.width * self.block_length} wide, but the block decoder's width is {width}"
            )
        if embedder.stack is not None and embedder.cls_tokens + self.block_length > ENCODER_POSITIONS:
            raise ValueError(f"the encoder takes {ENCODER_POSITIONS} tokens, cls_tokens and block together")

    @property
    def slots(self) -> int:
        """Vectors that a context embedding becomes in the token decoder."""
        return self.token_decoder.prefix_length or self.block_length

    @property
    def first(self) -> int:
        """The first position of a sequence that the model predicts: block 0 has no block before it."""
        return self.block_length


ModelConfig = VanillaConfig | BlockConfig


def to_dict(config: ModelConfig) -> dict[str, Any]:
    """The config as JSON-ready nested dictionaries."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> ModelConfig:
    """Inverse of :func:`to_dict`. Raises ``ValueError`` for another form, an unknown family or key."""
    families: dict[Any, type[ModelConfig]] = {"vanilla": VanillaConfig, "block": BlockConfig}
    family = values.get("family") if isinstance(values, dict) else None
    if not isinstance(family, str) or family not in families:
        raise ValueError(f"model family {family!r} is unknown; it is 'vanilla' or 'block'")
    try:
        config: ModelConfig = build(families[family], values)
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a model configuration: {error}") from error
    return config


def _check_counts(config: object, *names: str, least: int = 1) -> None:
    """Raise ``ValueError`` unless these are whole numbers from ``least`` to their largest."""
    for name in names:
        value, most = getattr(config, name), LARGEST.get(name, 1_000_000)
        if value is None and name == "window":
            continue
        if type(value) is not int or value < least:
            raise ValueError(f"{name} {value!r} must be a whole number of at least {least}")
        if value > most:
            raise ValueError(f"{name} {value} must be at most {most:,}")
