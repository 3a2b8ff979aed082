"""Stage corpus: documents split into train, validation and test, as compressed JSON lines and a manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from math import floor
from pathlib import Path
from typing import Any

from pipeline.base.errors import UserError
from pipeline.base.files import read_json, write_json
from pipeline.base.typed_json import build
from pipeline.data.archives import open_binary
from pipeline.data.duplicates import Duplicates
from pipeline.data.folders import replacing_folder
from pipeline.data.hashing import keyed
from pipeline.data.sources import read_source
from pipeline.study.schema import Corpus

SPLITS = ("train", "validation", "test")
SHARD_BYTES = 256 * 2**20
"""Text bytes after which a new file is begun."""

MOST_INVALID = 0.01
"""Share of the documents that may be no valid Unicode; more are of another encoding."""

SEEN = re.compile(
    "[^\\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""A character that is neither white space, nor a control character, nor invisible (Unicode: default ignorable)."""


@dataclass(frozen=True)
class CorpusSplit:
    """``bytes`` counts the documents' text as UTF-8; ``sha256`` is of the uncompressed JSON lines of all files.

    ``also_in_train`` of a held-out split's documents have the text of a training document: what is measured on them is
    too good.
    """

    documents: int
    bytes: int
    files: list[str]
    sha256: str
    also_in_train: int


@dataclass(frozen=True)
class CorpusManifest:
    """What the corpus stage wrote.

    Left out were ``empty_documents``, which held nothing that is seen, and ``invalid_documents``, which were no valid
    Unicode; ``first_invalid`` names the first of these. ``duplicate_documents`` had the text of one before them, letter
    for letter, and were left out too if ``deduplicated``.
    """

    source: str
    empty_documents: int
    invalid_documents: int
    first_invalid: str
    duplicate_documents: int
    deduplicated: bool
    splits: dict[str, CorpusSplit]

    @staticmethod
    def read(folder: Path) -> CorpusManifest:
        """Raises :class:`UserError` naming the stage to run where it is absent or of another form."""
        path = folder / "manifest.json"
        if not path.exists():
            raise UserError(f"{path}: no such file; run `dvc repro corpus` first")
        values = read_json(path)
        try:
            manifest: CorpusManifest = build(CorpusManifest, values)
            damaged = "" if manifest.splits.keys() == set(SPLITS) else f"splits {', '.join(manifest.splits)}"
            outside = [name for split in manifest.splits.values() for name in split.files if Path(name).name != name]
            damaged = f"{outside[0]!a} is no file of it" if outside else damaged
        except (TypeError, KeyError) as error:
            damaged = str(error)
        if damaged:
            raise UserError(f"{path}: not a corpus manifest ({damaged}); run `dvc repro --force corpus`")
        return manifest


class HeldOut:
    """Which documents are held out: a pure function of the seed and the document's place in the corpus.

    The corpus is cut into equal stretches, and one document of each, drawn by the seed, is held out; these go to
    validation and test in turn, in proportion. So the splits share whatever the corpus's order means (dates, say),
    and have the sizes asked for to within a document.
    """

    def __init__(self, validation: float, test: float, seed: int) -> None:
        self.fraction = validation + test
        self.test_share = test / self.fraction
        self.seed = seed

    def split(self, index: int) -> str:
        """``train``, ``validation`` or ``test``, for the document of that number."""
        stretch = floor(index * self.fraction)
        if index != _drawn(stretch, self.fraction, self.seed):
            return "train"
        is_test = floor((stretch + 1) * self.test_share) > floor(stretch * self.test_share)
        return "test" if is_test else "validation"


@lru_cache(maxsize=1)
def _drawn(stretch: int, fraction: float, seed: int) -> int:
    """The document that is held out of a stretch."""
    first, end = _first(stretch, fraction), _first(stretch + 1, fraction)
    return first + int(keyed(seed, stretch)) % (end - first)


def _first(stretch: int, fraction: float) -> int:
    first = max(floor(stretch / fraction) - 1, 0)
    while floor(first * fraction) < stretch:
        first += 1
    return first


def write_corpus(corpus: Corpus, folder: Path) -> CorpusManifest:
    """Read the study's source and write the folder, whole or not at all. Raises :class:`UserError`."""
    with replacing_folder(folder) as partial:
        manifest = _write(corpus, partial)
        for name, split in manifest.splits.items():
            if not split.documents:
                total = sum(part.documents for part in manifest.splits.values())
                raise UserError(
                    f"corpus: {total} documents are too few to give split {name} one; "
                    f"add documents or raise corpus.validation_fraction and corpus.test_fraction"
                )
        write_json(partial / "manifest.json", dataclasses.asdict(manifest))
    return manifest


def read_documents(folder: Path, split: str) -> Iterator[str]:
    """The texts of a split in the corpus's order, one in memory at a time. Raises :class:`UserError`."""
    for line in read_lines(folder, split):
        yield json.loads(line)["text"]


def read_lines(folder: Path, split: str) -> Iterator[bytes]:
    """The split's documents as JSON lines: reading them is cheap, and parsing can be left to another process."""
    for name in CorpusManifest.read(folder).splits[split].files:
        path = folder / name
        try:
            with open_binary(path) as opened:
                yield from opened
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error}); run `dvc repro --force corpus`") from None


def _write(corpus: Corpus, folder: Path) -> CorpusManifest:
    from tqdm import tqdm

    held_out = HeldOut(corpus.validation_fraction, corpus.test_fraction, corpus.seed)
    duplicates = Duplicates(SPLITS)
    documents = empty = invalid = 0
    first_invalid = ""
    with ExitStack() as stack:
        writers = {split: stack.enter_context(_SplitWriter(folder, split)) for split in SPLITS}
        bar = stack.enter_context(tqdm(desc="corpus", unit="B", unit_scale=True, disable=None))
        for document in read_source(corpus):
            if document.fault:
                invalid += 1
                first_invalid = first_invalid or document.fault
                continue
            if not SEEN.search(document.text):
                empty += 1
                continue
            split = held_out.split(documents)
            if duplicates.add(document.text, split) and corpus.deduplicate:
                continue
            bar.update(writers[split].add(document.text, document.origin))
            documents += 1
            if documents == corpus.max_documents:
                break
    if invalid > MOST_INVALID * (documents + invalid):
        raise UserError(
            f"{first_invalid}; {invalid} of {documents + invalid} documents are no valid Unicode, more than the "
            f"{MOST_INVALID:.0%} that may be left out; convert them to UTF-8"
        )
    splits = {
        split: writer.manifest(0 if corpus.deduplicate else duplicates.also_in_train(split))
        for split, writer in writers.items()
    }
    return CorpusManifest(corpus.source, empty, invalid, first_invalid, duplicates.copies, corpus.deduplicate, splits)


@dataclass
class _SplitWriter:
    folder: Path
    split: str
    documents: int = 0
    bytes: int = 0
    files: list[str] = field(default_factory=list)

    def __enter__(self) -> _SplitWriter:
        self._sha256 = hashlib.sha256()
        self._stream: Any = None
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream:
            self._stream.close()

    def add(self, text: str, origin: str) -> int:
        """Write a document; the bytes of its text."""
        if self._stream is None or self._room <= 0:
            self._next_file()
        line = json.dumps({"text": text, "origin": origin}, ensure_ascii=False).encode() + b"\n"
        self._stream.write(line)
        self._sha256.update(line)
        size = len(text.encode())
        self._room -= size
        self.documents += 1
        self.bytes += size
        return size

    def manifest(self, also_in_train: int) -> CorpusSplit:
        return CorpusSplit(self.documents, self.bytes, self.files, self._sha256.hexdigest(), also_in_train)

    def _next_file(self) -> None:
        from pyarrow import output_stream

        if self._stream:
            self._stream.close()
        self.files.append(f"{self.split}-{len(self.files):05d}.jsonl.zst")
        self._stream = output_stream(str(self.folder / self.files[-1]), compression="zstd", buffer_size=2**20)
        self._room = SHARD_BYTES
