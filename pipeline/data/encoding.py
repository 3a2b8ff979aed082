"""Text to tokens, several times as fast as the tokenizers library for the tokenizers of GPT-2's kind."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CACHED_WORDS = 2**20
LONGEST_CACHED = 64


class Encoder:
    """Encodes documents as ``tokenizer`` does, without special tokens.

    Text is mostly repetition. A byte-level BPE with GPT-2's pattern splits text into words and encodes each on its own,
    so here the words' tokens are remembered and the splitting is left to the re module. Passages with characters on
    whose class two versions of Unicode might disagree, and tokenizers of another kind, are left to the library.
    """

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype[Any]) -> None:
        self._tokenizer = tokenizer
        self._dtype = dtype
        self._words = _Words(self._by_library)
        settings = json.loads(tokenizer.to_str())
        self._splittable = _is_gpt2_like(settings)
        self._normalized = settings["normalizer"] is not None
        added = [token["content"] for token in settings["added_tokens"] if not token["special"]]
        longest_first = sorted(added, key=len, reverse=True)
        self._added = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if added else None
        self._stable: set[str] = set()

    def encode(self, text: str) -> npt.NDArray[Any]:
        """The tokens of a document, [T]."""
        parts = map(self._encode_part, PART.findall(text)) if self._splittable else [self._by_library(text)]
        return np.frombuffer(b"".join(parts), self._dtype)

    def _encode_part(self, text: str) -> bytes:
        if not self._is_stable(text):
            return self._by_library(text)
        if self._normalized:
            text = unicodedata.normalize("NFC", text)
        # An added token, such as GPT-NeoX's runs of spaces, is a word, and splitting starts afresh behind it.
        pieces = self._added.split(text) if self._added else [text]
        words = (WORD.findall(piece) if number % 2 == 0 else [piece] for number, piece in enumerate(pieces))
        return b"".join(map(self._words.__getitem__, chain.from_iterable(words)))

    def _by_library(self, text: str) -> bytes:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, self._dtype).tobytes()

    def _is_stable(self, text: str) -> bool:
        unknown = set(text) - self._stable
        unstable = {character for character in unknown if not _is_stable_character(character)}
        self._stable |= unknown - unstable
        return not unstable


class _Words(dict[str, bytes]):
    """Words and their tokens as bytes; one that is unknown is encoded, and remembered if it is short."""

    def __init__(self, encode: Callable[[str], bytes]) -> None:
        self._encode = encode

    def __missing__(self, word: str) -> bytes:
        tokens = self._encode(word)
        if len(word) <= LONGEST_CACHED:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = tokens
        return tokens


def _is_gpt2_like(settings: dict[str, Any]) -> bool:
    """Whether the tokenizer works word by word, with the words that :data:`WORD` finds."""
    splits = settings["pre_tokenizer"] or {}
    plain = all(
        token["normalized"]
        and not (token["single_word"] or token["lstrip"] or token["rstrip"])
        and not re.search(r"\S\s", token["content"])
        for token in settings["added_tokens"]
        if not token["special"]
    )
    return (
        plain
        and settings["normalizer"] in (None, {"type": "NFC"})
        and splits.get("type") == "ByteLevel"
        and not splits["add_prefix_space"]
        and splits["use_regex"]
        and settings["model"]["type"] == "BPE"
        and not settings["model"].get("dropout")
    )


# GPT-2's pattern in terms of the re module: its \w is letters, numbers and '_', its \d decimal digits alone.
_NUMBERS = "²³¹¼½¾"
_LETTER, _NUMBER, _OTHER = rf"[^\W\d_{_NUMBERS}]", rf"[\d{_NUMBERS}]", r"(?:[^\s\w]|_)"
WORD = re.compile(rf"'s|'t|'re|'ve|'m|'ll|'d| ?{_LETTER}+| ?{_NUMBER}+| ?{_OTHER}+|\s+(?!\S)|\s+")

PART = re.compile(r".{1,16384}(?:.*?[\w!-~](?=[ \n])|.*)", re.DOTALL)
"""A text in parts that can be encoded on their own: white space behind another character always begins a word."""


def _is_stable_character(character: str) -> bool:
    """Whether :data:`WORD` and every version of Unicode since 3.2 treat it as the library does."""
    if "\x1c" <= character <= "\x1f":  # white space for Python alone
        return False
    kind, old = unicodedata.category(character), unicodedata.ucd_3_2_0.category(character)
    if kind in ("Nl", "No"):
        return character in _NUMBERS
    if old == "Cn":
        return kind[0] in "SP"
    return kind[0] == old[0] or (kind[0] in "CSP" and old[0] in "CSP")
