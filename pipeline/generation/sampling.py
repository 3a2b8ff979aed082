"""How a token is chosen from logits.

A draw takes one uniform number, a hash of (seed, row of the request, index of the new token): what is drawn for a
prompt depends on neither the batch it runs in nor the device's generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.base.errors import UserError

_MIX = (-0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # splitmix64, as signed numbers


@dataclass(frozen=True)
class Sampling:
    """``temperature`` 0 is greedy. ``top_k`` keeps the likeliest k tokens, ``top_p`` the fewest that hold that mass."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature {self.temperature}: it is a number >= 0; 0 is greedy")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k {self.top_k}: it is a whole number >= 1, or none")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p}: it is above 0 and at most 1, or none")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature == 0


def uniform(seed: int, rows: Tensor, index: Tensor) -> Tensor:
    """fp64 [B] in [0, 1) from ``rows`` int64 [B] and ``index`` int64 []."""
    state = _mixed(rows + _signed(seed * 0x9E3779B97F4A7C15))
    state = _mixed(state + index * _MIX[0])
    return (state >> 12 & (1 << 52) - 1).double() * 2.0**-52


def draw(logits: Tensor, number: Tensor, sampling: Sampling) -> Tensor:
    """Tokens int64 [B] from ``logits`` [B, V] by inverse transform of ``number`` fp64 [B] in [0, 1)."""
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_k is None and sampling.top_p is None:
        return _inverse(probabilities, number)
    ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        ranked[:, sampling.top_k :] = 0
        ranked /= ranked.sum(-1, keepdim=True)
    if sampling.top_p is not None:
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= sampling.top_p, 0)
    # In the vocabulary's order again, in which rounding that swaps two equally likely tokens changes no draw.
    return _inverse(torch.zeros_like(ranked).scatter_(1, order, ranked), number)


def _inverse(weights: Tensor, number: Tensor) -> Tensor:
    """The index at which the cumulative weight passes ``number`` times the total."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    target = (number * cumulative[:, -1])[:, None]
    index = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return index.clamp_(max=weights.shape[-1] - 1)


def _mixed(state: Tensor) -> Tensor:
    state = state + _MIX[0]
    state = (state ^ (state >> 30 & (1 << 34) - 1)) * _MIX[1]
    state = (state ^ (state >> 27 & (1 << 37) - 1)) * _MIX[2]
    return state ^ (state >> 31 & (1 << 33) - 1)


def _signed(number: int) -> int:
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number
