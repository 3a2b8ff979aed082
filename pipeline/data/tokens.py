"""A tokenized corpus, memory-mapped: documents by number, whatever shards they lie in."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import UserError
from pipeline.data.indexed import IndexedFile, check_tokens
from pipeline.data.manifest import Manifest


class TokenCorpus:
    """A split's documents. Opening maps the files and checks their indexes; tokens are read when asked for."""

    def __init__(self, files: list[IndexedFile], vocabulary: int, end_of_text: int, hash: str, folder: Path) -> None:
        """``folder`` is where the corpus lies; an index of it may be kept beside that."""
        self.files = files
        self.vocabulary = vocabulary
        self.end_of_text = end_of_text
        self.hash = hash
        self.folder = folder
        self._ends = np.cumsum([file.documents for file in files], dtype=np.int64).tolist()

    @staticmethod
    def open(folder: Path, split: str) -> TokenCorpus:
        """A split of a tokens folder. Raises :class:`UserError` naming the file that is missing or damaged."""
        folder = Path(folder)
        manifest = Manifest.read(folder)
        if split not in manifest.splits:
            raise UserError(f"{folder}: no split {split!r}; it holds {', '.join(manifest.splits)}")
        files = []
        for shard in manifest.splits[split].shards:
            index = folder / shard.index if shard.index else None
            file = IndexedFile.open(folder / shard.path, shard.ends_included, index)
            if (file.documents, file.token_count) != (shard.documents, shard.tokens):
                raise UserError(f"{file.path}: not the file of the manifest; run `dvc repro --force tokenize`")
            files.append(file)
        return TokenCorpus(files, manifest.vocabulary, manifest.end_of_text, manifest.hash_of(split), folder)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def document(self, index: int) -> npt.NDArray[np.int64]:
        """The document's tokens, [T], without end of text."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.span(index, index + 1, 0, int(self.lengths_between(index, index + 1)[0]))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of every document, [documents]."""
        return self.lengths_between(0, len(self))

    def lengths_between(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Tokens of documents start..stop - 1."""
        parts = [file.lengths(first, last) for file, first, last in self._files_of(start, stop)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def span(self, start: int, stop: int, skip: int, count: int) -> npt.NDArray[np.int64]:
        """``count`` tokens of documents start..stop - 1, without end of text, from the first one's ``skip`` on."""
        result = np.empty(count, np.int64)
        done = 0
        for file, first, last in self._files_of(start, stop):
            part = file.read(first, last, skip, count - done, self.end_of_text)
            check_tokens(part, self.vocabulary, file.path)
            result[done : done + len(part)] = part
            done, skip = done + len(part), 0
        assert done == count
        return result

    def _files_of(self, start: int, stop: int) -> Iterator[tuple[IndexedFile, int, int]]:
        """The files that hold documents start..stop - 1, each with the range of its own documents."""
        number = bisect.bisect_right(self._ends, start)
        while start < stop:
            before = self._ends[number - 1] if number else 0
            end = min(stop, self._ends[number])
            if end > start:
                yield self.files[number], start - before, end - before
            start, number = end, number + 1
