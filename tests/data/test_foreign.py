import json

import numpy as np
import pytest

from pipeline.base.errors import UserError
from pipeline.data import Manifest, PackedStream, TokenCorpus, write_corpus, write_tokens
from pipeline.data.foreign import fingerprint
from pipeline.data.indexed import IndexedFile
from pipeline.study.schema import Corpus, Tokenize

DOCUMENTS = [[5, 6, 7], [8], [9, 10, 11, 12], [3, 4], [60] * 30]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A corpus folder and a tokenizer.json."""
    folder = tmp_path_factory.mktemp("prepared")
    lines = [json.dumps({"text": f"Document number {i}."}) for i in range(40)]
    (folder / "source.jsonl").write_text("\n".join(lines))
    write_corpus(Corpus(source="files", files=[str(folder / "source.jsonl")]), folder / "corpus")
    write_tokens(Tokenize(vocabulary=260), folder / "corpus", folder / "own", processes=1)
    return folder


def tokenize(prepared, indexed, target):
    settings = Tokenize(tokenizer=str(prepared / "own" / "tokenizer.json"), indexed=indexed)
    return write_tokens(settings, prepared / "corpus", target, processes=1)


@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
@pytest.mark.parametrize("end", [[], [0]])
def test_tokenized_splits_are_used_in_place(prepared, tmp_path, write_pair, dtype, end):
    write_pair(tmp_path / "pile" / "a", [document + end for document in DOCUMENTS], dtype)
    write_pair(tmp_path / "pile" / "b", [document + end for document in DOCUMENTS[:2]], dtype)
    paths = [str(tmp_path / "pile" / name) for name in ("a", "b.bin")]
    manifest = tokenize(prepared, {"train": paths}, tmp_path / "data" / "tokens")
    assert sorted(path.name for path in (tmp_path / "pile").iterdir()) == ["a.bin", "a.idx", "b.bin", "b.idx"]
    assert not list((tmp_path / "data" / "tokens").glob("train*"))
    corpus = TokenCorpus.open(tmp_path / "data" / "tokens", "train")
    expected = DOCUMENTS + DOCUMENTS[:2]
    assert [corpus.document(i).tolist() for i in range(len(corpus))] == expected
    counts = manifest.splits["train"]
    assert (counts.documents, counts.tokens, counts.bytes) == (7, 44, None)
    assert manifest.splits["test"] == Manifest.read(prepared / "own").splits["test"]
    for block_length in (None, 4):
        stream = PackedStream(corpus, 4, block_length, 0, seed=0)
        real = np.concatenate([window[valid] for window, valid in map(stream.window, range(len(stream)))])
        flat = [token for document in expected for token in [*document, 0]]
        assert real.tolist() == flat[: len(real)]
        assert len(real) > len(flat) - 4


def test_windows_are_those_of_files_without_end_of_text(prepared, tmp_path, write_pair):
    random = np.random.default_rng(0)
    documents = [random.integers(1, 200, length).tolist() for length in random.integers(0, 30, 200)]
    streams = []
    for name, end in (("with", [0]), ("without", [])):
        write_pair(tmp_path / name, [document + end for document in documents])
        tokenize(prepared, {"train": [str(tmp_path / name)]}, tmp_path / name / "tokens")
        streams.append(PackedStream(TokenCorpus.open(tmp_path / name / "tokens", "train"), 37, 4, 0, seed=0))
    assert len(streams[0]) == len(streams[1]) > 50
    for index in range(len(streams[0])):
        for one, other in zip(streams[0].window(index), streams[1].window(index), strict=True):
            assert one.tolist() == other.tolist()


def test_relative_paths_stay_relative(prepared, tmp_path, write_pair, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path / "pile" / "a", DOCUMENTS)
    manifest = tokenize(prepared, {"validation": ["pile/a"]}, tmp_path / "data" / "tokens")
    assert manifest.splits["validation"].shards[0].path == "../../pile/a"
    assert len(TokenCorpus.open(tmp_path / "data" / "tokens", "validation")) == 5


def test_another_tokenizers_files_are_refused(prepared, tmp_path, write_pair):
    write_pair(tmp_path / "a", [[5, 6], [260, 7]])
    with pytest.raises(UserError, match=r"a\.bin: holds token 260; the vocabulary's tokens are 0 to 259"):
        tokenize(prepared, {"train": [str(tmp_path / "a")]}, tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()
    write_pair(tmp_path / "b", [])
    with pytest.raises(UserError, match=r"b\.bin: holds no documents"):
        tokenize(prepared, {"train": [str(tmp_path / "b")]}, tmp_path / "tokens")


def test_documents_that_end_in_different_ways_are_refused(prepared, tmp_path, write_pair):
    write_pair(tmp_path / "a", [[5, 0], [6], [7, 0]])
    with pytest.raises(UserError, match=r"a\.bin: some documents end in token 0"):
        tokenize(prepared, {"train": [str(tmp_path / "a")]}, tmp_path / "tokens")
    # One among thousands escapes the sample, and is found where it is read.
    write_pair(tmp_path / "b", [[5, 0]] * 1001 + [[6, 7]] + [[5, 0]] * 3000)
    tokenize(prepared, {"train": [str(tmp_path / "b")]}, tmp_path / "tokens")
    corpus = TokenCorpus.open(tmp_path / "tokens", "train")
    assert corpus.document(1000).tolist() == [5]
    with pytest.raises(UserError, match=r"b\.bin: document 1001 lacks the end of text"):
        corpus.document(1001)


def test_fingerprint_sees_tokens_boundaries_and_type(tmp_path, write_pair):
    cases = [DOCUMENTS, [[5, 6, 7, 8], *DOCUMENTS[2:]], [*DOCUMENTS[:-1], [60] * 29 + [61]]]
    prints = {fingerprint(IndexedFile.open(write_pair(tmp_path / f"{i}", case))) for i, case in enumerate(cases)}
    prints.add(fingerprint(IndexedFile.open(write_pair(tmp_path / "int32", DOCUMENTS, "<i4"))))
    assert len(prints) == 4
    assert fingerprint(IndexedFile.open(write_pair(tmp_path / "again", DOCUMENTS))) in prints
