"""The virtual stream of documents that training reads, cut into windows; any window can be computed on its own."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import UserError
from pipeline.base.files import replacing
from pipeline.data.hashing import keyed, random_integers
from pipeline.data.tokens import TokenCorpus

GROUP = 256
"""Documents between two entries of the cumulative index: 10^8 documents need 3 MB of it."""

CHUNK = GROUP * 4096

Ints = npt.NDArray[np.int64]


class PackedStream:
    """Windows of ``context_length`` slots from all documents, one after another; the last, partial one is dropped.

    ``block_length`` None: each document is followed by end of text, and nothing else. Otherwise (paper, appendix H) it
    is also preceded by 0..L-1 pads, drawn by (seed, document) once and for all, and padded after its end of text to
    the block's boundary, so no block holds tokens of two documents. Pads are token 0, as everywhere (a lookup embedder
    embeds what a pad holds), and not valid; every end of text is.
    """

    def __init__(
        self, corpus: TokenCorpus, context_length: int, block_length: int | None, end_of_text: int, seed: int
    ) -> None:
        self.corpus = corpus
        self.context_length = context_length
        self.block_length = block_length
        self.end_of_text = end_of_text
        self.seed = seed
        self._key = keyed(seed, 1)
        self._starts = self._cumulative_index()
        if len(self) == 0:
            raise UserError(
                f"pretrain.context_length: {context_length} is more than the {self.slots} tokens of "
                f"{corpus.folder}; shorten the context or add documents to the split"
            )

    @property
    def slots(self) -> int:
        """Length of the whole stream, pads included."""
        return int(self._starts[-1])

    def __len__(self) -> int:
        """Number of windows."""
        return self.slots // self.context_length

    def window(self, index: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Tokens [T] and whether each is real [T], of slots index * T .. (index + 1) * T - 1."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, size = index * self.context_length, self.context_length
        first, pads, lengths, begins = self._documents_in(start)
        # A document's run: its tokens and end of text, from `begins` to `ends`, cut off at the window's edges.
        begins = begins + pads
        ends = begins + lengths
        edges = np.zeros(size + 1, np.int8)
        np.add.at(edges, np.clip(begins, 0, size), 1)
        np.add.at(edges, np.clip(ends + 1, 0, size), -1)
        valid = np.cumsum(edges[:-1]) > 0
        is_end = np.zeros(size, np.bool_)
        is_end[ends[(ends >= 0) & (ends < size)]] = True
        own = valid & ~is_end
        skipped = int(np.clip(-begins[0], 0, lengths[0]))
        tokens = np.zeros(size, np.int64)
        tokens[is_end] = self.end_of_text
        tokens[own] = self.corpus.span(first, first + len(lengths), skipped, int(own.sum()))
        return tokens, valid

    def left_pads(self, start: int, stop: int) -> Ints:
        """Pads before documents start..stop - 1."""
        if self.block_length is None:
            return np.zeros(stop - start, np.int64)
        positions = np.arange(start, stop, dtype=np.uint64)
        return random_integers(self._key, positions, self.block_length).astype(np.int64)

    def _extents(self, start: int, stop: int) -> tuple[Ints, Ints, Ints]:
        """Left pads, tokens and slots of documents start..stop - 1."""
        pads, lengths = self.left_pads(start, stop), self.corpus.lengths_between(start, stop)
        block = self.block_length or 1
        return pads, lengths, -(-(pads + lengths + 1) // block) * block

    def _documents_in(self, start: int) -> tuple[int, Ints, Ints, Ints]:
        """The first document with a slot in the window; from it on left pads, tokens, first slots after ``start``."""
        group = int(np.searchsorted(self._starts, start, "right")) - 1
        last = int(np.searchsorted(self._starts, start + self.context_length, "left"))
        first = group * GROUP
        pads, lengths, slots = self._extents(first, min(last * GROUP, len(self.corpus)))
        begins = int(self._starts[group]) - start + np.cumsum(slots) - slots
        inside = slice(
            int(np.searchsorted(begins + slots, 0, "right")), int(np.searchsorted(begins, self.context_length, "left"))
        )
        return first + inside.start, pads[inside], lengths[inside], begins[inside]

    def _cumulative_index(self) -> Ints:
        """The slot at which every :data:`GROUP`-th document starts, and the stream's length; kept on disk."""
        path = self.corpus.folder.parent / "index" / f"{self._name()}.npy"
        with suppress(OSError, ValueError, EOFError):
            return np.asarray(np.load(path, allow_pickle=False), np.int64)
        index = self._compute_index()
        # Where the corpus lies in a place that cannot be written, the index is computed anew each time.
        with suppress(OSError), replacing(path) as temporary, temporary.open("wb") as opened:
            np.save(opened, index)
        return index

    def _name(self) -> str:
        padding = "packed" if self.block_length is None else f"{self.block_length}-{self.seed}"
        return f"{self.corpus.hash[:32]}-{padding}-{GROUP}"

    def _compute_index(self) -> Ints:
        starts, total = [np.zeros(1, np.int64)], 0
        for start in range(0, len(self.corpus), CHUNK):
            slots = self._extents(start, min(start + CHUNK, len(self.corpus)))[2]
            ends = total + np.cumsum(np.add.reduceat(slots, np.arange(0, len(slots), GROUP)))
            starts.append(ends)
            total = int(ends[-1])
        return np.concatenate(starts)
