from pathlib import Path

import numpy as np
import pytest

from pipeline.data import TokenCorpus
from pipeline.data.indexed import IndexedFile, IndexedWriter


def _write_pair(prefix: Path, documents: list[list[int]], dtype: str = "<u2") -> Path:
    prefix.parent.mkdir(exist_ok=True)
    writer = IndexedWriter(prefix, np.dtype(dtype))
    for document in documents:
        writer.add(np.array(document, dtype), np.array([len(document)], np.int32))
    writer.close()
    return prefix


@pytest.fixture(scope="session")
def write_pair():
    return _write_pair


@pytest.fixture
def make_corpus(tmp_path: Path):
    """A corpus of random documents, given by their lengths, cut into that many shards."""

    def make(lengths: list[int], shards: int = 1, vocabulary: int = 100) -> TokenCorpus:
        random = np.random.default_rng(0)
        documents = [random.integers(1, vocabulary, length).tolist() for length in lengths]
        folder = tmp_path / "corpus"
        folder.mkdir(exist_ok=True)
        parts = np.array_split(np.arange(len(documents)), shards)
        files = [
            IndexedFile.open(_write_pair(folder / f"part-{number}", [documents[i] for i in part]))
            for number, part in enumerate(parts)
        ]
        return TokenCorpus(files, vocabulary, 0, "hash", folder)

    return make
