"""Tokens that another program has written in Megatron's indexed format, used where they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.base.errors import UserError
from pipeline.base.files import is_file
from pipeline.data.indexed import CHUNK, IndexedFile, Tokens, check_tokens, index_parts
from pipeline.data.manifest import ShardManifest, SplitManifest
from pipeline.data.source_files import identity

PIECES, PIECE = 64, 2**16
DOCUMENTS = 256


def foreign_split(
    paths: list[str], vocabulary: int, end_of_text: int, folder: Path, indexes: Path, split: str
) -> SplitManifest:
    """Describe pairs of .bin and .idx for the manifest of the tokens folder ``folder``; no token of them is copied.

    Where an .idx tells no documents but cuts of a stream, an index of the documents is written to the folder
    ``indexes``, under the split's name. Raises :class:`UserError` naming the file that is damaged or was made with
    another tokenizer.
    """
    shards = [
        _shard(_prefix(path), vocabulary, end_of_text, folder, indexes / f"{split}-{number:05d}.idx")
        for number, path in enumerate(paths)
    ]
    return SplitManifest(sum(shard.documents for shard in shards), sum(shard.tokens for shard in shards), None, shards)


def check_pairs(indexed: dict[str, list[str]]) -> None:
    """Raise :class:`UserError` where two names, of one split or of two, are the same file's."""
    seen: dict[object, str] = {}
    for split, paths in indexed.items():
        for path in paths:
            binary = pair(path)[0]
            if not is_file(binary):
                continue  # the reader says so
            key = f"tokenize.indexed.{split}"
            other = seen.setdefault(identity(binary), f"{path!r} of {key}")
            if other != f"{path!r} of {key}" or paths.count(path) > 1:
                raise UserError(f"{key}: {path!r} is the same file as {other}; name each file once")


def pair(path: str) -> tuple[Path, Path]:
    """The .bin and .idx files that a path with either ending, or none, stands for."""
    prefix = _prefix(path)
    return prefix.with_name(prefix.name + ".bin"), prefix.with_name(prefix.name + ".idx")


def _prefix(path: str) -> Path:
    return Path(path.removesuffix(".bin").removesuffix(".idx"))


def _shard(prefix: Path, vocabulary: int, end_of_text: int, folder: Path, index: Path) -> ShardManifest:
    whole = IndexedFile.open(prefix)
    for piece in _pieces(whole):
        check_tokens(piece, vocabulary, whole.path)
    named = str(prefix if prefix.is_absolute() else Path(os.path.relpath(prefix, folder)))
    layout = _layout(whole, end_of_text)
    if layout != "stream":
        file = IndexedFile.open(prefix, layout == "ended")
        return ShardManifest(named, file.documents, file.token_count, fingerprint(file), layout == "ended")
    _write_document_index(whole, end_of_text, index)
    file = IndexedFile.open(prefix, True, index)
    unfinished = len(whole.tokens) - len(file.tokens)
    return ShardManifest(named, file.documents, file.token_count, fingerprint(file), True, index.name, unfinished)


def _layout(file: IndexedFile, end_of_text: int) -> Literal["ended", "open", "stream"]:
    """What the file's documents are: each ends in end of text, none holds one, or they are cuts of a stream.

    Judged by evenly spaced documents and pieces; that each ends as it should is checked again where it is read. A
    stream's cuts are of one length, or hold several whole documents each.
    """
    if not file.documents:
        raise UserError(f"{file.path}: holds no documents")
    ending, within = set(), False
    for number in np.unique(np.linspace(0, file.documents - 1, DOCUMENTS, dtype=np.int64)):
        stored = file.read(int(number), int(number) + 1, 0, int(file.lengths(number, number + 1)[0]), end_of_text)
        ending.add(len(stored) > 0 and int(stored[-1]) == end_of_text)
        within = within or bool((stored[:-1] == end_of_text).any())
    if ending == {False}:
        within = within or any((piece == end_of_text).any() for piece in _pieces(file))
    if (within or len(ending) > 1) and (ending == {True} or _equally_long(file)):
        return "stream"
    if len(ending) > 1:
        raise UserError(f"{file.path}: some documents end in token {end_of_text}, end of text, and some do not")
    if within:
        raise UserError(f"{file.path}: documents hold token {end_of_text}, end of text, but do not end in it")
    return "ended" if ending == {True} else "open"


def _equally_long(file: IndexedFile) -> bool:
    """Whether all documents but the last, which may be shorter, have one length."""
    lengths = file.lengths(0, file.documents)
    return bool((lengths[:-1] == lengths[0]).all() and lengths[-1] <= lengths[0])


def _write_document_index(file: IndexedFile, end_of_text: int, index: Path) -> None:
    """An index of the documents that the end-of-text tokens end; what is behind the last one is in none."""
    ends = [
        start + np.flatnonzero(file.tokens[start : start + CHUNK] == end_of_text)
        for start in range(0, len(file.tokens), CHUNK)
    ]
    with index.open("wb") as opened:
        for part in index_parts(file.tokens.dtype, np.diff(np.concatenate(ends), prepend=-1)):
            opened.write(part)


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
