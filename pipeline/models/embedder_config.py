"""Embedders as data: how L tokens become one block embedding (paper, section 2.2 and appendix F.1).

A kind is a frozen config, with what it costs, and the keys that a study gives it. L is the block length, D the block
decoder's width; costs are a block's. The vocabulary's table is not the embedder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pipeline.base.made_of import added
from pipeline.models.parts import Keys, Part, check_counts, kind_named
from pipeline.models.stack_config import LayersConfig, default_heads

ENCODER_POSITIONS = 512


@dataclass(frozen=True)
class EncoderConfig(LayersConfig):
    """A RoBERTa encoder: learned positions, layers in both directions; its vocabulary's table is not counted."""

    norm_eps: float = 1e-5

    @property
    def parameters(self) -> int:
        """The layers', and the tables of positions (two unused) and of the token type with a norm's scale and bias."""
        return super().parameters + (ENCODER_POSITIONS + 2 + 1 + 2) * self.width


class EmbedderConfig(Part):
    """Base of the embedders. ``width`` is that of the rows of the vocabulary's table.

    ``overlap``: a matrix on the block before's embedding and a block's own is added to its own.
    """

    kind: ClassVar[str]
    FORM: ClassVar[Mapping[str, Any]] = {
        "kind": None,
        "width": None,
        "stack": None,
        "cls_tokens": 0,
        "padding_token": None,
    }

    width: int
    overlap: bool

    @classmethod
    def kind_of(cls, values: dict[str, Any]) -> type[Self]:
        kind = kind_named(CONFIGS, "embedder kind", values.get("kind"))
        assert issubclass(kind, cls)
        return kind

    def check(self, block_length: int, block_width: int) -> None:
        """Raise ``ValueError`` where this embedder cannot make a block embedding of that width."""

    @property
    def stacks(self) -> tuple[LayersConfig, ...]:
        """Its encoder, if it has one."""
        return ()

    def recent(self, block_length: int) -> int:
        """Tokens before a block, in whole blocks, that its embedding is made of too; ``overlap`` aside."""
        return 0

    def history(self, block_length: int) -> int:
        """Blocks before a block that its embedding depends on."""
        return self.recent(block_length) // block_length + self.overlap

    def parameters(self, block_length: int, block_width: int) -> int:
        """Parameters beside the vocabulary's table."""
        return 2 * block_width * block_width if self.overlap else 0

    def flops(self, block_length: int, block_width: int) -> float:
        """FLOPs of a block."""
        return 4 * block_width * block_width if self.overlap else 0

    def kept(self, block_length: int, block_width: int) -> int:
        """Numbers that a block keeps for the backward pass."""
        return 2 * block_width if self.overlap else 0


@dataclass(frozen=True)
class TableConfig(EmbedderConfig):
    """Base of the embedders that need no more of a token than its row of the table.

    ``convolution``: matrices on a row and on those of the ``convolution`` - 1 tokens before it are added to it.
    """

    width: int
    overlap: bool = field(default=False, kw_only=True)
    convolution: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        check_counts(self, "width")
        check_counts(self, "convolution", least=0)
        if self.convolution == 1:
            raise ValueError("embedder.convolution 1 sees no token before; give at least 2, or 0 for none")

    def recent(self, block_length: int) -> int:
        return -(-max(self.convolution - 1, 0) // block_length) * block_length

    def parameters(self, block_length: int, block_width: int) -> int:
        return super().parameters(block_length, block_width) + self.convolution * self.width * self.width

    def flops(self, block_length: int, block_width: int) -> float:
        convolved = 2 * block_length * self.convolution * self.width * self.width
        return super().flops(block_length, block_width) + convolved

    def kept(self, block_length: int, block_width: int) -> int:
        return super().kept(block_length, block_width) + block_length * self.convolution * self.width


@dataclass(frozen=True)
class LookupConfig(TableConfig):
    """Concatenates L rows of width D / L."""

    kind: ClassVar[str] = "lookup"

    def check(self, block_length: int, block_width: int) -> None:
        if self.width * block_length != block_width:
            raise ValueError(
                f"a lookup embedder of width {self.width} makes blocks of {block_length} tokens "
                f"{self.width * block_length} wide, but the block decoder's width is {block_width}"
            )


class _Projecting(EmbedderConfig):
    """A matrix maps ``outputs`` numbers to D."""

    def outputs(self, block_length: int) -> int:
        """Numbers of a block that are projected."""
        return block_length * self.width

    def parameters(self, block_length: int, block_width: int) -> int:
        return super().parameters(block_length, block_width) + (self.outputs(block_length) + 1) * block_width

    def flops(self, block_length: int, block_width: int) -> float:
        return super().flops(block_length, block_width) + 2 * self.outputs(block_length) * block_width


@dataclass(frozen=True)
class ProjectionConfig(TableConfig, _Projecting):
    """Projects the L rows, whatever their width, to D: the form that uptraining starts from."""

    kind: ClassVar[str] = "projection"


@dataclass(frozen=True)
class RobertaConfig(_Projecting):
    """Encodes the block with RoBERTa and projects its L outputs.

    ``padding_token`` is an id that the encoder takes for padding wherever it stands; only imported models have one.
    """

    kind: ClassVar[str] = "roberta"

    stack: EncoderConfig
    padding_token: int | None = None
    overlap: bool = field(default=False, kw_only=True)

    @property
    def width(self) -> int:  # type: ignore[override]
        return self.stack.width

    def check(self, block_length: int, block_width: int) -> None:
        if self.positions(block_length) > ENCODER_POSITIONS:
            raise ValueError(f"the encoder takes {ENCODER_POSITIONS} tokens, cls_tokens and block together")

    @property
    def stacks(self) -> tuple[LayersConfig, ...]:
        return (self.stack,)

    def positions(self, block_length: int) -> int:
        """Positions that the encoder sees."""
        return block_length

    def parameters(self, block_length: int, block_width: int) -> int:
        return super().parameters(block_length, block_width) + self.stack.parameters

    def flops(self, block_length: int, block_width: int) -> float:
        positions = self.positions(block_length)
        return super().flops(block_length, block_width) + self.stack.flops(positions, positions * positions)

    def kept(self, block_length: int, block_width: int) -> int:
        return super().kept(block_length, block_width) + self.positions(block_length) * self.stack.kept


@dataclass(frozen=True)
class ClsConfig(RobertaConfig):
    """As RoBERTa with ``cls_tokens`` leading tokens, whose outputs alone are projected."""

    kind: ClassVar[str] = "cls"

    cls_tokens: int = 3

    def __post_init__(self) -> None:
        check_counts(self, "cls_tokens")

    def outputs(self, block_length: int) -> int:
        return self.cls_tokens * self.width

    def positions(self, block_length: int) -> int:
        return self.cls_tokens + block_length


CONFIGS: dict[str, type[EmbedderConfig]] = {
    config.kind: config for config in (LookupConfig, ProjectionConfig, RobertaConfig, ClsConfig)
}


@dataclass(frozen=True)
class EmbedderKeys(Keys):
    """A study's keys of an embedder: ``overlap``, and those of its kind."""

    kind: str = "lookup"
    overlap: bool = added(False)

    @classmethod
    def kinds(cls) -> Mapping[str, type[EmbedderKeys]]:
        return EMBEDDERS

    def config(self, block_length: int, block_width: int) -> EmbedderConfig:
        """The embedder that these keys mean in a model, overlap aside. Raises ``ValueError`` where there is none."""
        raise NotImplementedError


@dataclass(frozen=True)
class LookupKeys(EmbedderKeys):
    """Tokens that a convolution reads; the width follows from the block length."""

    convolution: int = added(0)

    def config(self, block_length: int, block_width: int) -> EmbedderConfig:
        if block_width % block_length:
            raise ValueError(
                f"the lookup embedder needs a block length that divides the block decoder's width, "
                f"not {block_length} and {block_width}; take another block length or embedder.kind: projection"
            )
        return LookupConfig(block_width // block_length, convolution=self.convolution)


@dataclass(frozen=True)
class ProjectionKeys(EmbedderKeys):
    """``width`` of the table's rows; ``None``: the block decoder's. Tokens that a convolution reads."""

    kind: str = "projection"
    width: int | None = None
    convolution: int = added(0)

    def config(self, block_length: int, block_width: int) -> EmbedderConfig:
        return ProjectionConfig(self.width or block_width, convolution=self.convolution)


@dataclass(frozen=True)
class RobertaKeys(EmbedderKeys):
    """The encoder's shape; as in the paper where nothing else is said."""

    kind: str = "roberta"
    width: int | None = None
    layers: int = 3
    heads: int | None = None

    def config(self, block_length: int, block_width: int) -> EmbedderConfig:
        return RobertaConfig(self.encoder())

    def encoder(self) -> EncoderConfig:
        """The encoder of these keys."""
        width = self.width or 256
        heads = self.heads or default_heads(width)
        return EncoderConfig(self.layers, width, heads, heads, 4 * width)


@dataclass(frozen=True)
class ClsKeys(RobertaKeys):
    """The encoder's shape, and how many tokens lead the block."""

    kind: str = "cls"
    cls_tokens: int = 3

    def config(self, block_length: int, block_width: int) -> EmbedderConfig:
        return ClsConfig(self.encoder(), cls_tokens=self.cls_tokens)


EMBEDDERS: dict[str, type[EmbedderKeys]] = {
    "lookup": LookupKeys,
    "projection": ProjectionKeys,
    "roberta": RobertaKeys,
    "cls": ClsKeys,
}
