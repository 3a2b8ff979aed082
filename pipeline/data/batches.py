"""Batches in a pseudo-random order: batch k depends on corpus, seed and k alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.data.hashing import UInt64, keyed, mix
from pipeline.data.packing import PackedStream

ROUNDS = 6


@dataclass(frozen=True)
class Batch:
    """``tokens`` int64 [B, T]; ``valid`` bool [B, T] marks those that are real."""

    tokens: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_]


class Batches:
    """Every epoch visits each window once, in an order of its own; a batch may reach from one epoch into the next."""

    def __init__(self, stream: PackedStream, batch_size: int, seed: int) -> None:
        self.stream = stream
        self.batch_size = batch_size
        self.seed = seed

    def batch(self, k: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Batch k [B, T], or that rank's B / world_size consecutive rows of it."""
        if self.batch_size % world_size:
            raise ValueError(f"batch size {self.batch_size} is not a multiple of {world_size} ranks")
        rows = self.batch_size // world_size
        first = k * self.batch_size + rank * rows
        places = np.arange(first, first + rows, dtype=np.uint64)
        windows = [self.stream.window(int(index)) for index in self._window_indices(places)]
        return Batch(np.stack([tokens for tokens, _ in windows]), np.stack([valid for _, valid in windows]))

    def _window_indices(self, places: UInt64) -> UInt64:
        size = len(self.stream)
        epochs, indices = np.divmod(places, np.uint64(size))
        for epoch in np.unique(epochs):
            indices[epochs == epoch] = permute(indices[epochs == epoch], size, self.seed, int(epoch))
        return indices


def permute(indices: UInt64, size: int, seed: int, epoch: int) -> UInt64:
    """Where a pseudo-random permutation of 0..size - 1, chosen by (seed, epoch), takes each index; no table is made.

    A Feistel network permutes the smallest domain of an even number of bits; values outside the range are sent
    through it again until they fall inside (cycle walking, Black and Rogaway 2002), fewer than 4 times on average.
    """
    half = np.uint64(max((size - 1).bit_length() + 1, 2) // 2)
    keys = [keyed(seed, 2, epoch, number) for number in range(ROUNDS)]
    result = _feistel(indices, half, keys)
    while (outside := result >= size).any():
        result[outside] = _feistel(result[outside], half, keys)
    return result


def _feistel(values: UInt64, half: np.uint64, keys: list[np.uint64]) -> UInt64:
    """A permutation of the integers of 2 * half bits."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (mix(mix(right ^ key)) & mask)
    return (left << half) | right
