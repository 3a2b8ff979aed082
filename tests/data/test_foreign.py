import json
import pickle

import numpy as np
import pytest

from pipeline.base.errors import UserError
from pipeline.data import Manifest, PackedStream, TokenCorpus, write_corpus, write_tokens
from pipeline.data.foreign import fingerprint
from pipeline.data.indexed import IndexedFile
from pipeline.study.schema import Corpus, Tokenize

SPLITS = ("train", "validation", "test")
DOCUMENTS = [[5, 6, 7], [8], [9, 10, 11, 12], [3, 4], [60] * 30]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, write_pair):
    """A corpus folder, a tokenizer.json, and a file of tokens for each split."""
    folder = tmp_path_factory.mktemp("prepared")
    lines = [json.dumps({"text": f"Document number {i}."}) for i in range(40)]
    (folder / "source.jsonl").write_text("\n".join(lines))
    write_corpus(Corpus(source="files", files=[str(folder / "source.jsonl")]), folder / "corpus")
    write_tokens(Tokenize(vocabulary=260), folder / "corpus", folder / "own", processes=1)
    for split in SPLITS:
        write_pair(folder / split, DOCUMENTS)
    return folder


def tokenize(prepared, indexed, target, texts=()):
    """The other splits are tokens too, but for ``texts``: for these a process starts."""
    others = {split: [str(prepared / split)] for split in SPLITS if split not in texts}
    settings = Tokenize(tokenizer=str(prepared / "own" / "tokenizer.json"), indexed=others | indexed)
    return write_tokens(settings, prepared / "corpus", target, processes=1)


@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
@pytest.mark.parametrize("end", [[], [0]])
def test_tokenized_splits_are_used_in_place(prepared, tmp_path, write_pair, dtype, end):
    write_pair(tmp_path / "pile" / "a", [document + end for document in DOCUMENTS], dtype)
    write_pair(tmp_path / "pile" / "b", [document + end for document in DOCUMENTS[:2]], dtype)
    paths = [str(tmp_path / "pile" / name) for name in ("a", "b.bin")]
    manifest = tokenize(prepared, {"train": paths}, tmp_path / "data" / "tokens", texts=("validation", "test"))
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


def stream_of(documents, end=0):
    return [token for document in documents for token in [*document, end]]


def cuts(stream, length):
    return [stream[start : start + length] for start in range(0, len(stream), length)]


def documents_of(lengths, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(1, 200, length).tolist() for length in lengths]


STREAMS = {
    "some cuts end in end of text": (DOCUMENTS, 4),
    "no cut does": ([[5] * 6, [6] * 6, [7] * 6, [8] * 6], 5),
    "one cut": (DOCUMENTS, 1000),
    "a cut is a token": ([[5, 6], [7]], 1),
    "long documents": (documents_of([900, 1200, 800]), 64),
    "empty documents": ([[5, 6], [], [], [7, 8, 9], []], 3),
    "a document before each end": ([[], [5, 6], [7]], 2),
    "thousands of cuts": (documents_of(np.arange(3000) % 37), 16),
    "documents longer than a cut": (documents_of([3, 100, 4, 100, 5]), 10),
}


@pytest.mark.parametrize("name", STREAMS)
def test_documents_of_a_stream_are_found_by_their_ends(prepared, tmp_path, write_pair, name):
    documents, length = STREAMS[name]
    for dtype, tail in (("<u2", []), ("<i4", [9, 9, 9])):
        write_pair(tmp_path / "pile", cuts(stream_of(documents) + tail, length), dtype)
        manifest = tokenize(prepared, {"train": [str(tmp_path / "pile")]}, tmp_path / "data" / "tokens")
        corpus = TokenCorpus.open(tmp_path / "data" / "tokens", "train")
        assert [corpus.document(i).tolist() for i in range(len(corpus))] == documents
        (shard,) = manifest.splits["train"].shards
        assert (shard.documents, shard.tokens) == (len(documents), sum(map(len, documents)))
        assert (shard.index, shard.unfinished) == ("train-00000.idx", len(tail))
        assert sorted(path.name for path in tmp_path.glob("pile*")) == ["pile.bin", "pile.idx"]


def test_windows_of_a_stream_are_those_of_its_documents(prepared, tmp_path, write_pair):
    documents = documents_of(np.arange(200) % 29 + 1)
    streams = []
    for name, pair in (("documents", documents), ("stream", cuts(stream_of(documents), 8))):
        write_pair(tmp_path / name, pair)
        tokenize(prepared, {"train": [str(tmp_path / name)]}, tmp_path / name / "tokens")
        corpus = pickle.loads(pickle.dumps(TokenCorpus.open(tmp_path / name / "tokens", "train")))
        streams.append(PackedStream(corpus, 37, 4, 0, seed=0))
    assert len(streams[0]) == len(streams[1]) > 50
    for index in range(len(streams[0])):
        for one, other in zip(streams[0].window(index), streams[1].window(index), strict=True):
            assert one.tolist() == other.tolist()


def test_several_documents_a_sequence_are_found_by_their_ends(prepared, tmp_path, write_pair):
    write_pair(tmp_path / "a", [[5, 0, 6, 0], [7, 8, 0], [9, 0, 9, 9, 0]])
    tokenize(prepared, {"train": [str(tmp_path / "a")]}, tmp_path / "tokens")
    corpus = TokenCorpus.open(tmp_path / "tokens", "train")
    assert [corpus.document(i).tolist() for i in range(len(corpus))] == [[5], [6], [7, 8], [9], [9, 9]]


@pytest.mark.parametrize(
    "documents",
    [
        [[5, 0, 6], [7, 8], [9] * 4],
        [[0, 5, 6], [0, 7], [0, 8, 9]],
        [[5, 6]] * 300 + [[5, 0, 6]] + [[7]] * 300 + [[5, 6]] * 2,
    ],
)
def test_end_of_text_within_documents_is_refused(prepared, tmp_path, write_pair, documents):
    write_pair(tmp_path / "a", documents)
    with pytest.raises(UserError, match=r"a\.bin: documents hold token 0, end of text, but do not end in it"):
        tokenize(prepared, {"train": [str(tmp_path / "a")]}, tmp_path / "tokens")


@pytest.mark.parametrize("documents", [[[5, 6], [7, 8]], [[5, 6], [7, 8], [9]], [[5], [6]]])
def test_documents_of_one_length_are_no_stream_without_ends(prepared, tmp_path, write_pair, documents):
    for end in ([], [0]):
        write_pair(tmp_path / "a", [document + end for document in documents])
        manifest = tokenize(prepared, {"train": [str(tmp_path / "a")]}, tmp_path / "tokens")
        assert manifest.splits["train"].shards[0].index is None
        corpus = TokenCorpus.open(tmp_path / "tokens", "train")
        assert [corpus.document(i).tolist() for i in range(len(corpus))] == documents


def test_a_stream_that_has_become_shorter_is_refused(prepared, tmp_path, write_pair):
    write_pair(tmp_path / "a", cuts(stream_of(DOCUMENTS), 4))
    tokenize(prepared, {"train": [str(tmp_path / "a")]}, tmp_path / "tokens")
    content = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").write_bytes(content[:-8])
    with pytest.raises(UserError, match=r"a\.bin: \d+ bytes, but train-00000\.idx describes \d+; it is truncated"):
        TokenCorpus.open(tmp_path / "tokens", "train")
