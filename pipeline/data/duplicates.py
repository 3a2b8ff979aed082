"""Documents whose text another document has too, letter for letter; digests are kept, not texts."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

_PLACES = 2**10
_SPLIT = 0b11
_DIGEST = 2**64 - 1 - _SPLIT


class Duplicates:
    """Which documents are copies of one before, and which held-out ones the training split has too.

    An open-addressed hash table (Knuth, volume 3, section 6.4): 12 to 24 bytes per text, 200 more for one with copies.
    A place holds 0, or 62 bits of the text's digest above the number of its first document's split, from 1 on; a text
    lies in the first free place from its digest's on. Two different texts of a hundred million are taken for copies
    with a probability of 1 in 900.
    """

    def __init__(self, splits: Sequence[str]) -> None:
        """``splits`` are at most three; the first is the training split."""
        self.copies = 0
        self._splits = list(splits)
        self._places = array("Q", bytes(8 * _PLACES))
        self._texts = 0
        self._counts: dict[int, list[int]] = {}

    def add(self, text: str, split: str) -> bool:
        """Whether a document of equal text was added before."""
        digest = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") & _DIGEST
        number, place = self._splits.index(split), self._place(digest)
        if held := self._places[place]:
            counts = self._counts.setdefault(digest, [0] * len(self._splits))
            if not any(counts):
                counts[(held & _SPLIT) - 1] = 1
            counts[number] += 1
            self.copies += 1
            return True
        self._places[place] = digest | (number + 1)
        self._texts += 1
        if 3 * self._texts > 2 * len(self._places):
            self._double()
        return False

    def also_in_train(self, split: str) -> int:
        """Documents of a held-out split whose text is a training document's too."""
        number = self._splits.index(split)
        return sum(counts[number] for counts in self._counts.values() if counts[0]) if number else 0

    def _place(self, digest: int) -> int:
        """Where the digest lies, or where it would."""
        places, mask = self._places, len(self._places) - 1
        place = (digest >> 2) & mask
        while (held := places[place]) and (held & _DIGEST) != digest:
            place = (place + 1) & mask
        return place

    def _double(self) -> None:
        held = self._places
        self._places = array("Q", bytes(16 * len(held)))
        for entry in filter(None, held):
            self._places[self._place(entry & _DIGEST)] = entry
