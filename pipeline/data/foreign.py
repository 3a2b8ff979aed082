"""Tokens that another program has written in Megatron's indexed format, used where they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.base.errors import UserError
from pipeline.data.indexed import IndexedFile, Tokens, check_tokens
from pipeline.data.manifest import ShardManifest, SplitManifest

PIECES, PIECE = 64, 2**16
DOCUMENTS = 256


def foreign_split(paths: list[str], vocabulary: int, end_of_text: int, folder: Path) -> SplitManifest:
    """Describe pairs of .bin and .idx for the manifest in ``folder``; nothing of them is copied.

    Raises :class:`UserError` naming the file that is damaged or was made with another tokenizer.
    """
    shards = [_shard(path, vocabulary, end_of_text, folder) for path in paths]
    return SplitManifest(sum(shard.documents for shard in shards), sum(shard.tokens for shard in shards), None, shards)


def pair(path: str) -> tuple[Path, Path]:
    """The .bin and .idx files that a path with either ending, or none, stands for."""
    prefix = _prefix(path)
    return prefix.with_name(prefix.name + ".bin"), prefix.with_name(prefix.name + ".idx")


def _prefix(path: str) -> Path:
    return Path(path.removesuffix(".bin").removesuffix(".idx"))


def _shard(path: str, vocabulary: int, end_of_text: int, folder: Path) -> ShardManifest:
    prefix = _prefix(path)
    ends_included = _ends_included(IndexedFile.open(prefix), end_of_text)
    file = IndexedFile.open(prefix, ends_included)
    for piece in _pieces(file):
        check_tokens(piece, vocabulary, file.path)
    named = prefix if prefix.is_absolute() else Path(os.path.relpath(prefix, folder))
    return ShardManifest(str(named), file.documents, file.token_count, fingerprint(file), ends_included)


def _ends_included(file: IndexedFile, end_of_text: int) -> bool:
    """Whether documents end in end of text, judged by evenly spaced ones; the rest is checked where it is read."""
    if not file.documents:
        raise UserError(f"{file.path}: holds no documents")
    ending = set()
    for number in np.unique(np.linspace(0, file.documents - 1, DOCUMENTS, dtype=np.int64)):
        stored = file.read(int(number), int(number) + 1, 0, int(file.lengths(number, number + 1)[0]), end_of_text)
        ending.add(len(stored) > 0 and int(stored[-1]) == end_of_text)
    if len(ending) > 1:
        raise UserError(f"{file.path}: some documents end in token {end_of_text}, end of text, and some do not")
    return ending == {True}


def fingerprint(file: IndexedFile) -> str:
    """SHA-256 of every length and of 64 evenly spaced pieces of the tokens, 4 million; the .bin may be too large."""
    digest = hashlib.sha256(f"{file.tokens.dtype.str} {len(file.tokens)} {file.documents}".encode())
    for start in range(0, len(file.sequence_lengths), 2**20):
        digest.update(file.sequence_lengths[start : start + 2**20].tobytes())
    for piece in _pieces(file):
        digest.update(piece.tobytes())
    return digest.hexdigest()


def _pieces(file: IndexedFile) -> Iterator[Tokens]:
    for number in range(PIECES):
        start = number * max(len(file.tokens) - PIECE, 0) // (PIECES - 1)
        yield file.tokens[start : start + PIECE]
