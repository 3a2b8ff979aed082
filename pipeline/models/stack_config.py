"""Stacks of layers as data: the GPT-NeoX stack of both families, its kinds of layers, and what other stacks share.

Costs are counts: parameters, FLOPs (two a multiply-add), numbers kept for the backward pass or in a cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pipeline.models.parts import Part, check_counts, kind_named


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
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")

    @property
    def head_width(self) -> int:
        """Width of a head, of queries as of keys."""
        return self.width // self.heads

    @property
    def key_width(self) -> int:
        """Width of all keys, or all values, of a position in one layer."""
        return self.kv_heads * self.head_width

    @property
    def layer_matrices(self) -> int:
        """Entries of the matrices that one layer applies to every position."""
        return self.width * (2 * self.width + 2 * self.key_width + 2 * self.feed_forward)

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
        return 2 * self.layers * self.layer_matrices * positions + 4 * self.layers * self.width * pairs

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
        rotated = 2 * (self.width + 2 * self.key_width) - self.key_width
        return 4 * self.width + rotated + self.width + 2 * self.feed_forward

    @property
    def kept(self) -> int:
        """Numbers that a position keeps in all layers for the backward pass."""
        return self.layers * self.layer_kept


@dataclass(frozen=True)
class StackConfig(LayersConfig):
    """Causal layers with rotary positions and a final norm, GPT-NeoX style; the base of :data:`LAYERS`.

    ``window`` is the number of positions that a query sees, itself included; ``None``: all before it.
    """

    layer: ClassVar[str] = "neox"

    window: int | None = None
    rotary_fraction: float = 0.25
    rotary_base: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None:
            check_counts(self, "window")

    @classmethod
    def kind_of(cls, values: dict[str, Any]) -> type[Self]:
        kind = kind_named(LAYERS, "layer", values.get("layer", StackConfig.layer))
        assert issubclass(kind, cls)
        return kind

    @property
    def rotary_width(self) -> int:
        """Leading dimensions of a head that are rotated (an even number)."""
        return int(self.head_width * self.rotary_fraction) // 2 * 2

    @property
    def parameters(self) -> int:
        """The layers' and the final norm's."""
        return super().parameters + 2 * self.width

    def keys(self, position: float) -> float:
        """Keys that a query after ``position`` others sees."""
        return position if self.window is None else min(position, self.window)

    def causal_pairs(self, length: int) -> float:
        """Pairs of query and key that the mask leaves of ``length`` positions."""
        window = int(self.keys(length))
        return window * (window + 1) / 2 + (length - window) * window


LAYERS: dict[str, type[StackConfig]] = {"neox": StackConfig}
"""The kinds of layers of causal stacks; the ``FORM`` of a further one names its ``layer``."""


def default_heads(width: int) -> int:
    """Heads of the published configurations: 32 wide up to width 256, 64 up to 1536, then 128."""
    head_width = 32 if width <= 256 else 64 if width <= 1536 else 128
    return max(width // head_width, 1)
