"""A tokenized corpus, memory-mapped: documents by number, whatever shards they lie in."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.data.indexed import IndexedFile, Tokens
from pipeline.data.manifest import Manifest
from pipeline.errors import UserError


class TokenCorpus:
    """A split's documents. Opening maps the files and checks their indexes; tokens are read when asked for."""

    def __init__(self, files: list[IndexedFile], vocabulary: int, hash: str, folder: Path) -> None:
        """``folder`` is where the corpus lies; an index of it may be kept beside that."""
        self.files = files
        self.vocabulary = vocabulary
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
            file = IndexedFile.open(folder / shard.path)
            if (file.documents, len(file.tokens)) != (shard.documents, shard.tokens):
                raise UserError(f"{file.path}: not the file of the manifest; run `dvc repro --force tokenize`")
            files.append(file)
        return TokenCorpus(files, manifest.vocabulary, manifest.hash_of(split), folder)

    @staticmethod
    def open_files(prefixes: list[Path], vocabulary: int) -> TokenCorpus:
        """Pairs of .bin and .idx in Megatron's format, such as Pythia's, used where they lie."""
        from pipeline.data.fingerprint import fingerprint

        files = [IndexedFile.open(Path(prefix)) for prefix in prefixes]
        return TokenCorpus(files, vocabulary, fingerprint(files), Path(prefixes[0]))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def document(self, index: int) -> npt.NDArray[np.int64]:
        """The document's tokens, [T], without end of text."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.span(index, 0, int(self.lengths_between(index, index + 1)[0]))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of every document, [documents]."""
        return self.lengths_between(0, len(self))

    def lengths_between(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Tokens of documents start..stop - 1."""
        parts = [file.lengths(first, last) for file, first, last in self._files_of(start, stop)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def span(self, document: int, skip: int, count: int) -> npt.NDArray[np.int64]:
        """``count`` tokens from the document's token ``skip`` on, running into the following documents, [count]."""
        result = np.empty(count, np.int64)
        done = 0
        for file, first, _ in self._files_of(document, len(self)):
            start = file.position(first) + skip
            part = file.tokens[start : start + count - done]
            result[done : done + len(part)] = self._checked(part, file)
            done, skip = done + len(part), 0
            if done == count:
                break
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

    def _checked(self, tokens: Tokens, file: IndexedFile) -> Tokens:
        if len(tokens) and (tokens.max() >= self.vocabulary or tokens.min() < 0):
            wrong = int(tokens.max() if tokens.max() >= self.vocabulary else tokens.min())
            raise UserError(f"{file.path}: holds token {wrong}; the vocabulary's tokens are 0 to {self.vocabulary - 1}")
        return tokens
