"""Megatron's indexed format (MMIDIDX version 1): a .bin of tokens and an .idx of where each sequence lies.

.idx, little-endian: 9 bytes of magic, u64 version, u8 type code, u64 sequences, u64 length of the document index,
then int32 lengths in tokens, int64 offsets in bytes, int64 document index (the first sequence of each document,
and the number of sequences at its end). Pythia's and Megatron-LM's files are read in place, by memory map.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
TYPE_CODES: dict[int, np.dtype[Any]] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
CHUNK = 2**20

Tokens = npt.NDArray[Any]


@dataclass(frozen=True)
class IndexedFile:
    """A memory-mapped pair of files that holds ``documents`` documents back to back.

    Sequence s is ``tokens[offsets[s] / itemsize :]``, ``sequence_lengths[s]`` of them; document d is the sequences
    ``document_index[d]`` to ``document_index[d + 1] - 1``. Documents count from 0, and so do a document's tokens.

    ``document_index`` is ``None`` where every document is one sequence, as in the Pile of Pythia. ``ends_included``
    says that each document's last token is its end of text, which then is not counted among its tokens.
    """

    path: Path
    tokens: Tokens
    sequence_lengths: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    document_index: npt.NDArray[np.int64] | None
    ends_included: bool = False
    index: Path | None = None

    @staticmethod
    def open(prefix: Path, ends_included: bool = False, index: Path | None = None) -> IndexedFile:
        """Map ``prefix``.bin and .idx, and check the index in pieces. Raises :class:`UserError` naming the file.

        ``index`` takes the place of the .idx, and need not reach to the end of the .bin.
        """
        other, index, binary = index, index or _beside(prefix, ".idx"), _beside(prefix, ".bin")
        dtype, sequences, entries = _read_header(index)
        if not binary.exists():
            raise UserError(f"{binary}: no such file; it belongs beside {index.name}")
        size = binary.stat().st_size
        if size % dtype.itemsize:
            raise UserError(f"{binary}: {size} bytes are no whole number of {dtype.name} tokens; it is truncated")
        described = _check_sequences(index, sequences, dtype.itemsize)
        if described > size or (described < size and other is None):
            raise UserError(
                f"{binary}: {size} bytes, but {index.name} describes {described}; "
                f"it is truncated, or not this index's file"
            )
        trivial = _check_document_index(index, sequences, entries)
        return IndexedFile(
            binary,
            _map(binary, dtype, 0, described // dtype.itemsize),
            _map(index, np.dtype("<i4"), HEADER.size, sequences),
            _map(index, np.dtype("<i8"), HEADER.size + 4 * sequences, sequences),
            None if trivial else _map(index, np.dtype("<i8"), HEADER.size + 12 * sequences, entries),
            ends_included,
            other,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the files itself; the tokens are not sent to it."""
        return IndexedFile.open, (self.path.with_suffix(""), self.ends_included, self.index)

    @property
    def documents(self) -> int:
        """Number of documents."""
        index = self.document_index
        return len(self.sequence_lengths) if index is None else len(index) - 1

    @property
    def token_count(self) -> int:
        """Tokens of all documents, without end of text."""
        return len(self.tokens) - self.documents * self.ends_included

    def lengths(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Tokens of documents start..stop - 1, without end of text."""
        if self.document_index is None:
            stored = self.sequence_lengths[start:stop].astype(np.int64)
        else:
            stored = np.diff(self._starts(self.document_index[start : stop + 1]))
        if self.ends_included and stored.min(initial=1) < 1:
            raise UserError(
                f"{self.path}: document {start + int(stored.argmin())} lacks the end of text that others have"
            )
        return stored - self.ends_included

    def read(self, document: int, stop: int, skip: int, count: int, end_of_text: int) -> Tokens:
        """At most ``count`` tokens of documents document..stop - 1, without end of text, from token ``skip`` on."""
        sequence = document if self.document_index is None else int(self.document_index[document])
        start = int(self._starts(np.array([sequence]))[0]) + skip
        # Where each document's end of text lies, counted from `start`; without any, as if each had one behind it.
        ends = np.cumsum(self.lengths(document, stop) + 1) - 1 - skip
        if not self.ends_included:
            # ends[-1] counts an end of text behind each document before the last, and there is none.
            return self.tokens[start : start + min(count, int(ends[-1]) + 1 - len(ends))]
        # `count` tokens and, at most, all the ends of text between them.
        stored = self.tokens[start : start + min(int(ends[-1]) + 1, count + len(ends))]
        ends = ends[ends < len(stored)]
        if (stored[ends] != end_of_text).any():
            wrong = document + int((stored[ends] != end_of_text).argmax())
            raise UserError(f"{self.path}: document {wrong} lacks the end of text that others have")
        return np.delete(stored, ends)[:count]

    def _starts(self, sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where the sequences' first tokens lie in ``tokens``; for the number of sequences, where the last one ends."""
        if not len(self.offsets):
            return np.zeros(len(sequences), np.int64)
        inside = self.offsets[np.minimum(sequences, len(self.offsets) - 1)] // self.tokens.itemsize
        return np.where(sequences < len(self.offsets), inside, len(self.tokens))


class IndexedWriter:
    """Writes a pair of files, tokens as they come; only the documents' lengths are held in memory."""

    def __init__(self, prefix: Path, dtype: np.dtype[Any]) -> None:
        self.prefix, self.dtype = prefix, dtype
        self.tokens = 0
        self.documents = 0
        self._lengths: list[npt.NDArray[np.int32]] = []
        self._sha256 = hashlib.sha256()
        self._binary = _beside(prefix, ".bin").open("wb")

    def add(self, tokens: Tokens, lengths: npt.NDArray[np.int32]) -> None:
        """Append documents: their tokens, one after another, and the length of each."""
        data = np.ascontiguousarray(tokens, self.dtype).tobytes()
        self._binary.write(data)
        self._sha256.update(data)
        self._lengths.append(np.asarray(lengths, np.int32))
        self.tokens += len(tokens)
        self.documents += len(lengths)

    def close(self) -> str:
        """Write the index; the SHA-256 of the .bin followed by the .idx."""
        self._binary.close()
        with _beside(self.prefix, ".idx").open("wb") as opened:
            for part in index_parts(self.dtype, np.concatenate([np.empty(0, np.int32), *self._lengths])):
                opened.write(part)
                self._sha256.update(part)
        return self._sha256.hexdigest()


def index_parts(dtype: np.dtype[Any], lengths: npt.NDArray[Any]) -> Iterator[bytes]:
    """The bytes of an .idx of documents of one sequence each, given their lengths in tokens."""
    code = next(code for code, known in TYPE_CODES.items() if known == dtype)
    offsets = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], out=offsets[1:])
    yield HEADER.pack(MAGIC, 1, code, len(lengths), len(lengths) + 1)
    yield lengths.astype("<i4").tobytes()
    yield (offsets * dtype.itemsize).astype("<i8").tobytes()
    yield np.arange(len(lengths) + 1, dtype="<i8").tobytes()


def check_tokens(tokens: Tokens, vocabulary: int, path: Path) -> None:
    """Raise :class:`UserError` for a token that the vocabulary does not have."""
    if len(tokens) and (tokens.max() >= vocabulary or tokens.min() < 0):
        wrong = int(tokens.max() if tokens.max() >= vocabulary else tokens.min())
        raise UserError(f"{path}: holds token {wrong}; the vocabulary's tokens are 0 to {vocabulary - 1}")


def _beside(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)


def _read_header(path: Path) -> tuple[np.dtype[Any], int, int]:
    """Token type, sequences and entries of the document index."""
    try:
        with path.open("rb") as opened:
            header = opened.read(HEADER.size)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    if len(header) < HEADER.size:
        raise UserError(f"{path}: {len(header)} bytes are too few for an index; it is truncated")
    magic, version, code, sequences, entries = HEADER.unpack(header)
    if magic != MAGIC or version != 1:
        raise UserError(f"{path}: not an index of Megatron's format MMIDIDX, version 1")
    if code not in TYPE_CODES:
        raise UserError(f"{path}: token type code {code} is not supported; 4 (int32) and 8 (uint16) are")
    expected, size = HEADER.size + 12 * sequences + 8 * entries, path.stat().st_size
    if size != expected:
        raise UserError(f"{path}: {size} bytes, but its header asks for {expected}; it is truncated or damaged")
    return TYPE_CODES[code], sequences, entries


def _check_sequences(path: Path, sequences: int, itemsize: int) -> int:
    """The bytes that the sequences fill, one after another. Read in pieces, not through the map: memory is bounded."""
    with path.open("rb") as lengths, path.open("rb") as offsets:
        lengths.seek(HEADER.size)
        offsets.seek(HEADER.size + 4 * sequences)
        end = 0
        for start in range(0, sequences, CHUNK):
            count = min(CHUNK, sequences - start)
            sizes = _read(lengths, "<i4", count).astype(np.int64) * itemsize
            ends = end + np.cumsum(sizes)
            wrong = np.flatnonzero((_read(offsets, "<i8", count) != ends - sizes) | (sizes < 0))
            if len(wrong):
                where = start + int(wrong[0])
                raise UserError(f"{path}: sequence {where} does not follow the one before it; the index is damaged")
            end = int(ends[-1])
    return end


def _check_document_index(path: Path, sequences: int, entries: int) -> bool:
    """Whether every document is one sequence."""
    trivial, last = entries == sequences + 1, 0
    with path.open("rb") as opened:
        opened.seek(HEADER.size + 12 * sequences)
        for start in range(0, entries, CHUNK):
            index = _read(opened, "<i8", min(CHUNK, entries - start))
            if index[0] < last or (np.diff(index) < 0).any() or index[-1] > sequences or (start == 0 and index[0]):
                raise UserError(f"{path}: its document index does not rise from 0 to {sequences}; it is damaged")
            trivial = trivial and bool((index == np.arange(start, start + len(index))).all())
            last = int(index[-1])
    if entries == 0 or last != sequences:
        raise UserError(f"{path}: its document index ends at {last}, not at its {sequences} sequences; it is damaged")
    return trivial


def _read(opened: BinaryIO, dtype: str, count: int) -> npt.NDArray[Any]:
    return np.frombuffer(opened.read(count * np.dtype(dtype).itemsize), dtype)


def _map(path: Path, dtype: np.dtype[Any], offset: int, count: int) -> npt.NDArray[Any]:
    if count == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r", offset, (count,)))
