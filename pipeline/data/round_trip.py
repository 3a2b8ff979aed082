"""Whether text comes back from its tokens: what a tokenizer changes, and what it loses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.base.errors import UserError
from pipeline.data.manifest import RoundTrip

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLED_DOCUMENTS = 1000
"""Evenly spaced documents of each split that are decoded again."""

SAMPLED_CHARACTERS = 2**14
"""Of each of them, its beginning."""

MOST_LOST = 0.01
"""Share of the sampled documents that may lose text; it is the share that may be no valid Unicode."""


def stride(documents: int) -> int:
    """Every how many-th document of a split is sampled."""
    return math.ceil(documents / SAMPLED_DOCUMENTS) or 1


def sampled(documents: int) -> int:
    """How many documents of a split are sampled."""
    return math.ceil(documents / stride(documents))


ENOUGH = 100
"""Sampled documents after which too many lost ones are refused."""


@dataclass(frozen=True)
class Outcome:
    """``lost`` is the first character that is not in the tokens, if any; ``changed`` includes those documents."""

    changed: bool
    lost: str = ""


class RoundTripCheck:
    """Decodes a text's tokens and compares.

    What the tokenizer's own normalizer makes of the text (its case, accents, compatibility forms), and white space, may
    differ: such a text is changed. Where anything else does, characters have vanished, or become the unknown token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        from tokenizers import decoders

        self._tokenizer = tokenizer
        if isinstance(tokenizer.decoder, decoders.WordPiece):
            # Its clean-up writes "don't" for "do not", whose tokens are all there.
            tokenizer.decoder = decoders.WordPiece(tokenizer.decoder.prefix, cleanup=False)

    def outcome(self, text: str, tokens: list[int]) -> Outcome:
        """Compare ``text`` with its ``tokens``."""
        decoded = self._tokenizer.decode(tokens, skip_special_tokens=False)
        if decoded == text:
            return Outcome(changed=False)
        normalizer = self._tokenizer.normalizer
        expected = _without_space(normalizer.normalize_str(text) if normalizer else text)
        found = _without_space(decoded)
        if expected == found:
            return Outcome(changed=True)
        same = next((i for i, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]), len(found))
        return Outcome(changed=True, lost=expected[same] if same < len(expected) else found[len(expected)])


def _without_space(text: str) -> str:
    """Without white space, for which sentencepiece's tokenizers write U+2581."""
    return "".join(text.replace("\u2581", " ").split())


class Tally:
    """Outcomes of a whole corpus, of which ``documents`` are sampled in all."""

    def __init__(self, tokenizer: str | None, documents: int) -> None:
        self._tokenizer = tokenizer
        self._documents = documents
        self._first = ""
        self.checked = self.changed = self.lost = 0

    def add(self, origin: str, outcome: Outcome) -> None:
        """Count a document. Raises :class:`UserError` where more lose text than may, without waiting for the rest."""
        self.checked += 1
        self.changed += outcome.changed
        if outcome.lost:
            self.lost += 1
            self._first = self._first or f"first U+{ord(outcome.lost):04X} in {origin!a}"
        if self.lost > MOST_LOST * self._documents and self.checked >= min(ENOUGH, self._documents):
            raise UserError(
                f"tokenize.tokenizer: {self._tokenizer!r} loses text: {self.lost} of {self.checked} sampled documents "
                f"do not come back from their tokens ({self._first}), more than {MOST_LOST:.0%}; take one whose "
                f"vocabulary has every byte (byte-level BPE's whole initial alphabet, or byte fallback)"
            )

    def result(self) -> RoundTrip:
        return RoundTrip(self.checked, self.changed, self.lost)
