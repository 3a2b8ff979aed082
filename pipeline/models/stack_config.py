"""Stacks of layers as data: the causal stack of both families, its kinds of layers, and what other stacks share.

Costs are counts: parameters, FLOPs (two a multiply-add), numbers kept for the backward pass or in a cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pipeline.models.parts import Keys, Part, check_counts, kind_named

LEAST_CHUNK = 64
"""Queries that a chunk of :func:`chunks` has at least: fewer would not fill a tile of attention's kernels."""


def chunks(length: int, window: int | None) -> tuple[int, int]:
    """(C, N) of sliding-window attention: the last N chunks of C of ``length`` queries see their own and C more keys.

    What stands before these chunks, C to 2 C - 1 positions or all, is attended to as a square.
    """
    if window is None:
        return length, 0
    chunk = max(window, LEAST_CHUNK)
    return chunk, max(length // chunk - 1, 0)


@dataclass(frozen=True)
class LayersConfig(Part):
    """What every stack has: ``width`` is the hidden size, ``kv_heads < heads`` is grouped-query attention."""

    FORM: ClassVar[Mapping[str, Any]] = {
        "layers": None,
        "width": None,
        "heads": None,
        "kv_heads": None,
        "feed_forward": None,
        "window": None,
        "rotary_fraction": 0.25,
        "rotary_base": 10000.0,
        "norm_eps": None,
    }

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int

    def __post_init__(self) -> None:
        check_counts(self, "layers", "width", "heads", "kv_heads", "feed_forward")
        for name in ("rotary_fraction", "rotary_base", "norm_eps"):
            value = getattr(self, name, 0)
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise ValueError(f"{name} {value!r} must be a number of at least 0")
        if getattr(self, "head_dim", None) is None and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")

    @property
    def head_width(self) -> int:
        """Width of a head, of queries as of keys."""
        return self.width // self.heads

    @property
    def query_width(self) -> int:
        """Width of all queries of a position in one layer, and of what attention gives."""
        return self.heads * self.head_width

    @property
    def key_width(self) -> int:
        """Width of all keys, or all values, of a position in one layer."""
        return self.kv_heads * self.head_width

    @property
    def layer_matrices(self) -> int:
        """Entries of the matrices that one layer applies to every position."""
        return self.width * (2 * self.query_width + 2 * self.key_width + 2 * self.feed_forward)

    @property
    def layer_vectors(self) -> int:
        """Entries of one layer's biases and norms; here those of two layer norms, and a bias a matrix."""
        return 2 * self.key_width + self.feed_forward + 7 * self.width

    @property
    def matrices(self) -> int:
        """Entries of all layers' matrices."""
        return self.layers * self.layer_matrices

    @property
    def parameters(self) -> int:
        """All parameters; here the layers' alone."""
        return self.matrices + self.layers * self.layer_vectors

    def flops(self, positions: float, pairs: float) -> float:
        """Products of that many positions with the matrices, and attention over the pairs of query and key."""
        return 2 * self.layers * self.layer_matrices * positions + 4 * self.layers * self.query_width * pairs

    @property
    def cached(self) -> int:
        """Numbers that the keys and values of one position are."""
        return 2 * self.layers * self.key_width

    @property
    def layer_kept(self) -> int:
        """Numbers that a position keeps in one layer for the backward pass.

        Its two norms' inputs and outputs; query, key and value before and after rotation; attention's output; and the
        feed-forward's inner state before and after the activation.
        """
        rotated = 2 * (self.query_width + 2 * self.key_width) - self.key_width
        return 4 * self.width + rotated + self.query_width + 2 * self.feed_forward

    @property
    def kept(self) -> int:
        """Numbers that a position keeps in all layers for the backward pass."""
        return self.layers * self.layer_kept


@dataclass(frozen=True)
class StackConfig(LayersConfig):
    """Causal layers with rotary positions and a final norm, GPT-NeoX style; the base of :data:`LAYERS`.

    ``centred``: norms subtract the mean (layer norms, with a bias); otherwise they are RMS norms, with a scale alone.
    ``window`` is the number of positions that a query sees, itself included; ``None``: all before it. With
    ``global_every`` every so many-th layer sees all of them (3 of 4 layers have the window if it is 4).
    """

    layer: ClassVar[str] = "neox"
    centred: ClassVar[bool] = True

    window: int | None = None
    rotary_fraction: float = 0.25
    rotary_base: float = 10000.0
    norm_eps: float = 1e-5
    global_every: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None:
            check_counts(self, "window")
        if self.global_every is not None:
            check_counts(self, "global_every", least=2)
            if self.window is None or self.global_every > self.layers:
                raise ValueError(
                    f"global_every {self.global_every} of window {self.window} and {self.layers} layers says nothing: "
                    "it is how often a layer has no window"
                )

    @classmethod
    def kind_of(cls, values: dict[str, Any]) -> type[Self]:
        kind = kind_named(LAYERS, "layer", values.get("layer", StackConfig.layer))
        assert issubclass(kind, cls)
        return kind

    @classmethod
    def default_feed_forward(cls, width: int) -> int:
        """The feed-forward width where none is given."""
        return 4 * width

    @property
    def rotary_width(self) -> int:
        """Leading dimensions of a head that are rotated (an even number)."""
        return int(self.head_width * self.rotary_fraction) // 2 * 2

    @property
    def parameters(self) -> int:
        """The layers' and the final norm's."""
        return super().parameters + (2 if self.centred else 1) * self.width

    @property
    def windows(self) -> list[int | None]:
        """The window of every layer."""
        every = self.global_every
        return [None if every and layer % every == 0 else self.window for layer in range(1, self.layers + 1)]

    def keys(self, position: float) -> float:
        """Keys that a query after ``position`` others sees; a mean over layers."""
        windowed = position if self.window is None else min(position, self.window)
        return windowed + self._global_share * (position - windowed)

    def causal_pairs(self, length: int) -> float:
        """Pairs of query and key that the mask leaves of ``length`` positions; a mean over layers."""
        windowed = _pairs(length, self.window)
        return windowed + self._global_share * (_pairs(length, None) - windowed)

    def computed_pairs(self, length: int) -> float:
        """Pairs of query and key that a training pass takes the products of; a mean over layers."""
        chunk, count = chunks(length, self.window)
        windowed = (length - count * chunk) ** 2 + 2 * count * chunk**2
        return windowed + self._global_share * (length**2 - windowed)

    def unread_flops(self, positions: int) -> float:
        """What the last layer costs at the first ``positions``, if nobody reads more of them than keys and values."""
        matrices = self.layer_matrices - 2 * self.width * self.key_width
        return 2 * matrices * positions + 4 * self.query_width * _pairs(positions, self.windows[-1])

    @property
    def _global_share(self) -> float:
        """The share of layers that see all positions in spite of a window."""
        return self.layers // self.global_every / self.layers if self.global_every else 0.0


def _pairs(length: int, window: int | None) -> float:
    """Pairs of query and key of ``length`` positions, of which each sees the last ``window``, or all."""
    seen = length if window is None else min(length, window)
    return seen * (seen + 1) / 2 + (length - seen) * seen


@dataclass(frozen=True)
class LlamaConfig(StackConfig):
    """Llama's layers: RMS norms, a feed-forward with a gate (SwiGLU) after attention, no biases.

    ``feed_forward`` is the width behind the gate. ``query_key_norm``: every head's query and key get an RMS norm before
    they are rotated (Qwen3). ``head_dim``: the width of a head, ``None`` for width / heads.
    """

    layer: ClassVar[str] = "llama"
    centred: ClassVar[bool] = False
    FORM: ClassVar[Mapping[str, Any]] = {**StackConfig.FORM, "layer": "llama"}

    rotary_fraction: float = 1.0
    query_key_norm: bool = False
    head_dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_dim is not None:
            check_counts(self, "head_dim")
            if self.head_dim * self.heads == self.width:  # so that equal models have equal forms
                object.__setattr__(self, "head_dim", None)
        if self.head_width % 2:
            raise ValueError(f"head_dim {self.head_width} must be even: its halves are rotated against each other")

    @classmethod
    def default_feed_forward(cls, width: int) -> int:
        """8 / 3 of the width, to the nearest multiple of 8 or 64: a layer has as many parameters as GPT-NeoX's then."""
        multiple = 8 if width < 512 else 64
        return max(round(width * 8 / 3 / multiple), 1) * multiple

    @property
    def head_width(self) -> int:
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def layer_matrices(self) -> int:
        """Gate and inner state have a matrix each."""
        return super().layer_matrices + self.width * self.feed_forward

    @property
    def layer_vectors(self) -> int:
        """The scales of the norms."""
        return 2 * self.width + (2 * self.head_width if self.query_key_norm else 0)

    @property
    def layer_kept(self) -> int:
        """Also the gate, before and after its activation, and what norms give before their scales."""
        normed = 2 * (self.query_width + self.key_width) if self.query_key_norm else 0
        return super().layer_kept + 2 * self.feed_forward + 2 * self.width + normed


LAYERS: dict[str, type[StackConfig]] = {"neox": StackConfig, "llama": LlamaConfig}
"""The kinds of layers of causal stacks; the ``FORM`` of a further one names its ``layer``."""


@dataclass(frozen=True)
class LayerKeys(Keys):
    """A study's keys of a kind of layer: those fields of its configuration that are no part of a size's shape."""

    kind: str = "neox"

    @classmethod
    def kinds(cls) -> Mapping[str, type[LayerKeys]]:
        return LAYER_KEYS

    @property
    def of(self) -> type[StackConfig]:
        """The configuration of stacks of such layers."""
        return LAYERS[self.kind]

    def stack(self, *shape: int) -> StackConfig:
        """Layers of that shape: number, width, heads, kv_heads, feed-forward width."""
        return self.of(*shape, **{name: value for name, value in vars(self).items() if name != "kind"})


@dataclass(frozen=True)
class LlamaKeys(LayerKeys):
    """What models of this kind differ in."""

    kind: str = "llama"
    query_key_norm: bool = False
    head_dim: int | None = None
    rotary_base: float = 10000.0
    norm_eps: float = 1e-5


LAYER_KEYS: dict[str, type[LayerKeys]] = {"neox": LayerKeys, "llama": LlamaKeys}


def default_heads(width: int) -> int:
    """Heads of the published configurations: 32 wide up to width 256, 64 up to 1536, then 128."""
    head_width = 32 if width <= 256 else 64 if width <= 1536 else 128
    return max(width // head_width, 1)
