"""Stage tokenize: documents into token shards, on all cores, in the corpus's order whatever their number."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import UserError
from pipeline.base.files import sha256
from pipeline.data.corpus import SPLITS, CorpusManifest, read_documents, read_lines
from pipeline.data.encoding import Encoder
from pipeline.data.folders import replacing_folder
from pipeline.data.foreign import foreign_split
from pipeline.data.indexed import IndexedWriter
from pipeline.data.manifest import Manifest, ShardManifest, SplitManifest
from pipeline.data.tokenizer import (
    end_of_text_id,
    hub_tokenizer,
    on_the_hub,
    open_tokenizer,
    padded,
    padding_id,
    train_tokenizer,
    training_sample,
    vocabulary_size,
)
from pipeline.study.schema import Tokenize

PIECE_BYTES = 2**20
"""JSON lines that a process tokenizes at a time."""


@dataclass(frozen=True)
class Piece:
    """Some documents' tokens, one after another, their lengths, and the bytes of their texts."""

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int32]
    bytes: int


def write_tokens(tokenize: Tokenize, corpus: Path, folder: Path, processes: int | None = None) -> Manifest:
    """Tokenize a corpus folder into a tokens folder, whole or not at all; by default on every core.

    Raises :class:`UserError` for a corpus or tokenizer that cannot be used.
    """
    with replacing_folder(folder) as partial:
        tokenizer = _tokenizer(tokenize, corpus)
        tokenizer.save(str(partial / "tokenizer.json"))
        vocabulary = vocabulary_size(tokenizer)
        end_of_text = end_of_text_id(tokenizer, tokenize.end_of_text)
        dtype = np.dtype("<u2" if vocabulary <= 2**16 else "<i4")
        with _Pool(partial / "tokenizer.json", dtype, processes or _cores()) as pool:
            splits = {
                split: foreign_split(tokenize.indexed[split], vocabulary, end_of_text, folder)
                if split in tokenize.indexed
                else _write_split(split, corpus, partial, pool, tokenize.shard_tokens)
                for split in SPLITS
            }
        manifest = Manifest(
            vocabulary=vocabulary,
            model_vocabulary=padded(vocabulary if tokenize.tokenizer else max(vocabulary, tokenize.vocabulary)),
            end_of_text=end_of_text,
            padding=padding_id(tokenizer, end_of_text),
            tokenizer_hash=sha256(partial / "tokenizer.json"),
            splits=splits,
        )
        manifest.write(partial)
    return manifest


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tokenizer(tokenize: Tokenize, corpus: Path) -> Any:
    if tokenize.tokenizer is not None and on_the_hub(tokenize.tokenizer):
        return hub_tokenizer(tokenize.tokenizer, tokenize.vocabulary)
    if tokenize.tokenizer is not None:
        return open_tokenizer(Path(tokenize.tokenizer))
    total = CorpusManifest.read(corpus).splits["train"].bytes
    sample = training_sample(read_documents(corpus, "train"), total)
    return train_tokenizer(sample, tokenize.vocabulary, tokenize.end_of_text)


def _write_split(split: str, corpus: Path, folder: Path, pool: _Pool, shard_tokens: int) -> SplitManifest:
    from tqdm import tqdm

    writer = _ShardWriter(folder, split, pool.dtype, shard_tokens)
    text_bytes = CorpusManifest.read(corpus).splits[split].bytes
    with tqdm(desc=f"tokenize {split}", total=text_bytes, unit="B", unit_scale=True, disable=None) as bar:
        for piece in pool.map(_pieces(read_lines(corpus, split))):
            writer.add(piece)
            bar.update(piece.bytes)
    shards = writer.close()
    return SplitManifest(
        sum(shard.documents for shard in shards), sum(shard.tokens for shard in shards), text_bytes, shards
    )


class _ShardWriter:
    """Begins a new shard where the present one would outgrow ``shard_tokens``."""

    def __init__(self, folder: Path, split: str, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, dtype, shard_tokens
        self.shards: list[ShardManifest] = []
        self._open()

    def add(self, piece: Piece) -> None:
        ends = np.cumsum(piece.lengths, dtype=np.int64)
        document = token = 0
        while document < len(ends):
            room = self.shard_tokens - self.writer.tokens
            stop = int(np.searchsorted(ends, token + room, "right"))
            if stop <= document and self.writer.documents:
                self._close()
                self._open()
                continue
            stop = max(stop, document + 1)
            end = int(ends[stop - 1])
            self.writer.add(piece.tokens[token:end], piece.lengths[document:stop])
            document, token = stop, end

    def close(self) -> list[ShardManifest]:
        self._close()
        return self.shards

    def _open(self) -> None:
        self.writer = IndexedWriter(self.folder / f"{self.split}-{len(self.shards):05d}", self.dtype)

    def _close(self) -> None:
        digest = self.writer.close()
        writer = self.writer
        self.shards.append(ShardManifest(writer.prefix.name, writer.documents, writer.tokens, digest))


class _Pool:
    """Tokenizes pieces in order, with a bounded number of them in memory."""

    def __init__(self, tokenizer: Path, dtype: np.dtype[Any], processes: int) -> None:
        self.dtype, self.processes = dtype, processes
        self._arguments = (tokenizer, dtype)

    def __enter__(self) -> _Pool:
        # Spawned, not forked: the tokenizers library has threads, which do not survive a fork.
        self._executor = ProcessPoolExecutor(
            self.processes, get_context("spawn"), initializer=_start, initargs=self._arguments
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def map(self, pieces: Iterable[list[bytes]]) -> Iterator[Piece]:
        waiting: deque[Future[Piece]] = deque()
        for piece in pieces:
            waiting.append(self._executor.submit(_tokenize, piece))
            if len(waiting) > 2 * self.processes:
                yield self._result(waiting)
        while waiting:
            yield self._result(waiting)

    def _result(self, waiting: deque[Future[Piece]]) -> Piece:
        try:
            return waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "tokenize: a process died, perhaps for lack of memory; free some, or split very long documents"
            ) from None


def _pieces(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


_encode: Callable[[list[bytes]], Piece]


def _start(tokenizer_path: Path, dtype: np.dtype[Any]) -> None:
    """Prepare a process of the pool: it has one thread, leaves Ctrl-C to the stage, and does not outlive it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    encoder = Encoder(open_tokenizer(tokenizer_path), dtype)

    def encode(lines: list[bytes]) -> Piece:
        texts = [json.loads(line)["text"] for line in lines]
        documents = [encoder.encode(text) for text in texts]
        lengths = np.array([len(document) for document in documents], np.int32)
        return Piece(np.concatenate(documents), lengths, sum(len(text.encode()) for text in texts))

    global _encode
    _encode = encode


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _tokenize(lines: list[bytes]) -> Piece:
    return _encode(lines)
