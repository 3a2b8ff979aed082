"""Processes that tokenize pieces of a split, one per core."""

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
from pipeline.data.encoding import Encoder
from pipeline.data.round_trip import SAMPLED_CHARACTERS, Outcome, RoundTripCheck
from pipeline.data.tokenizer import end_of_text_id, open_tokenizer

PIECE_BYTES = 2**20
"""JSON lines that a process tokenizes at a time."""


@dataclass(frozen=True)
class Lines:
    """Documents as JSON lines; ``sampled`` are the indices of those that are decoded again."""

    lines: list[bytes]
    sampled: list[int]


@dataclass(frozen=True)
class Piece:
    """Some documents' tokens, one after another, their lengths, and the bytes of their texts.

    ``outcomes`` are those of the sampled documents, each with the document's origin.
    """

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int32]
    bytes: int
    outcomes: list[tuple[str, Outcome]]


def pieces(lines: Iterable[bytes], stride: int) -> Iterator[Lines]:
    """The lines in groups of about :data:`PIECE_BYTES`; every ``stride``-th document, from the first on, is sampled."""
    piece: list[bytes] = []
    first = size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield Lines(piece, list(range(-first % stride, len(piece), stride)))
            first, piece, size = first + len(piece), [], 0
    if piece:
        yield Lines(piece, list(range(-first % stride, len(piece), stride)))


class Pool:
    """Tokenizes pieces in order, with a bounded number of them in memory."""

    def __init__(self, tokenizer: Path, end_of_text: str, dtype: np.dtype[Any], processes: int) -> None:
        self.dtype, self.processes = dtype, processes
        self._arguments = (tokenizer, end_of_text, dtype)

    def __enter__(self) -> Pool:
        # Spawned, not forked: the tokenizers library has threads, which do not survive a fork.
        self._executor = ProcessPoolExecutor(
            self.processes, get_context("spawn"), initializer=_start, initargs=self._arguments
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def map(self, pieces: Iterable[Lines]) -> Iterator[Piece]:
        """Each piece tokenized. Raises :class:`UserError` for a document that cannot be."""
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


class _Worker:
    """What a process of the pool holds."""

    def __init__(self, tokenizer: Path, end_of_text: str, dtype: np.dtype[Any]) -> None:
        opened = open_tokenizer(tokenizer)
        self._end, self._end_name = end_of_text_id(opened, end_of_text), end_of_text
        self._encoder = Encoder(opened, dtype)
        self._check = RoundTripCheck(opened)

    def tokenize(self, piece: Lines) -> Piece:
        records = [json.loads(line) for line in piece.lines]
        documents = [self._encode(record["text"], record["origin"]) for record in records]
        outcomes = [(records[i]["origin"], self._outcome(records[i]["text"])) for i in piece.sampled]
        lengths = np.array([len(document) for document in documents], np.int32)
        size = sum(len(record["text"].encode()) for record in records)
        return Piece(np.concatenate(documents), lengths, size, outcomes)

    def _encode(self, text: str, origin: str) -> npt.NDArray[Any]:
        tokens = self._encoder.encode(text)
        if (tokens == self._end).any():
            raise UserError(
                f"{origin!a}: the tokenizer makes {self._end_name!r} of text within the document, which would end "
                f"it there; take that out of the text, or name another token by tokenize.end_of_text"
            )
        return tokens

    def _outcome(self, text: str) -> Outcome:
        beginning = text[:SAMPLED_CHARACTERS]
        return self._check.outcome(beginning, self._encoder.encode(beginning).tolist())


_tokenize_here: Callable[[Lines], Piece]


def _start(tokenizer: Path, end_of_text: str, dtype: np.dtype[Any]) -> None:
    """Prepare a process of the pool: it has one thread, leaves Ctrl-C to the stage, and does not outlive it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _tokenize_here
    _tokenize_here = _Worker(tokenizer, end_of_text, dtype).tokenize


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _tokenize(piece: Lines) -> Piece:
    return _tokenize_here(piece)
