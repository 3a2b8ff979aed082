import pickle
import struct

import numpy as np
import pytest

from pipeline.base.errors import UserError
from pipeline.data import TokenCorpus
from pipeline.data.indexed import IndexedFile

DOCUMENTS = [[5, 6, 7], [8], [9, 10, 11, 12], [3, 4]]


def open_pairs(*prefixes, ends_included=False):
    files = [IndexedFile.open(prefix, ends_included) for prefix in prefixes]
    return TokenCorpus(files, 100, 0, "hash", prefixes[0])


def idx_bytes(lengths, dtype_code, document_index, itemsize):
    """The format written down a second time, field by field."""
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]) * itemsize
    return b"".join(
        [
            b"MMIDIDX\x00\x00",
            struct.pack("<Q", 1),
            struct.pack("<B", dtype_code),
            struct.pack("<Q", len(lengths)),
            struct.pack("<Q", len(document_index)),
            np.array(lengths, "<i4").tobytes(),
            offsets.astype("<i8").tobytes(),
            np.array(document_index, "<i8").tobytes(),
        ]
    )


@pytest.mark.parametrize(("dtype", "code"), [("<u2", 8), ("<i4", 4)])
def test_written_files_have_the_formats_bytes(write_pair, tmp_path, dtype, code):
    write_pair(tmp_path / "a", DOCUMENTS, dtype)
    flat = [token for document in DOCUMENTS for token in document]
    assert (tmp_path / "a.bin").read_bytes() == np.array(flat, dtype).tobytes()
    expected = idx_bytes([3, 1, 4, 2], code, [0, 1, 2, 3, 4], np.dtype(dtype).itemsize)
    assert (tmp_path / "a.idx").read_bytes() == expected


@pytest.mark.parametrize(("dtype", "code"), [("<u2", 8), ("<i4", 4)])
def test_foreign_files_are_read_in_place(tmp_path, dtype, code):
    tokens = np.arange(10, dtype=dtype) + 1
    (tmp_path / "pile.bin").write_bytes(tokens.tobytes())
    # Two sequences make up document 1; document 2 is empty.
    (tmp_path / "pile.idx").write_bytes(idx_bytes([3, 2, 1, 4], code, [0, 1, 3, 3, 4], tokens.itemsize))
    corpus = open_pairs(tmp_path / "pile")
    assert [corpus.document(i).tolist() for i in range(len(corpus))] == [[1, 2, 3], [4, 5, 6], [], [7, 8, 9, 10]]
    assert corpus.lengths.tolist() == [3, 3, 0, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pile.bin", "pile.idx"]


def test_several_files_are_one_corpus(write_pair, tmp_path):
    prefixes = [write_pair(tmp_path / "a", DOCUMENTS), write_pair(tmp_path / "b", DOCUMENTS[1:], "<i4")]
    corpus = open_pairs(*prefixes)
    assert [corpus.document(i).tolist() for i in range(len(corpus))] == DOCUMENTS + DOCUMENTS[1:]
    assert corpus.span(2, 6, 3, 5).tolist() == [12, 3, 4, 8, 9]
    assert corpus.lengths_between(3, 5).tolist() == [2, 1]


def test_a_corpus_sent_to_another_process_is_mapped_there(tmp_path, write_pair):
    write_pair(tmp_path / "pile.v2", [[1] * 100_000, [2, 3, 0]])
    corpus = open_pairs(tmp_path / "pile.v2")
    sent = pickle.dumps(corpus)
    assert len(sent) < 2000
    assert pickle.loads(sent).document(1).tolist() == [2, 3, 0]


def damaged(data, position, value):
    return data[:position] + value + data[position + len(value) :]


@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        (".idx", lambda data: data[:20], "too few for an index"),
        (".idx", lambda data: data[:-1], "truncated or damaged"),
        (".idx", lambda data: data + b"\0", "truncated or damaged"),
        (".idx", lambda data: b"NOTANIDX\0" + data[9:], "not an index of Megatron's format"),
        (".idx", lambda data: damaged(data, 9, b"\x02"), "not an index of Megatron's format"),
        (".idx", lambda data: damaged(data, 17, b"\x07"), "type code 7 is not supported"),
        (".idx", lambda data: damaged(data, 34, b"\x63"), "sequence 1 does not follow"),
        (".idx", lambda data: damaged(data, 34 + 3 * 4, b"\x63"), "describes"),
        (".idx", lambda data: damaged(data, 34 + 2 * 4, b"\xff\xff\xff\xff"), "sequence 2 does not follow"),
        (".idx", lambda data: damaged(data, 34 + 4 * 4 + 8, b"\xff"), "sequence 1 does not follow"),
        (".idx", lambda data: damaged(data, len(data) - 8, b"\x09"), "document index does not rise"),
        (".idx", lambda data: damaged(data, len(data) - 16, b"\x01"), "document index does not rise"),
        (".bin", lambda data: data[:-1], "no whole number of uint16 tokens"),
        (".bin", lambda data: data[:-2], "truncated, or not this index's file"),
        (".bin", lambda data: data + data, "truncated, or not this index's file"),
    ],
)
def test_damaged_files_are_refused_by_name(write_pair, tmp_path, suffix, change, message):
    write_pair(tmp_path / "a", DOCUMENTS)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        open_pairs(tmp_path / "a")
    assert str(tmp_path / "a.") in str(caught.value)


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_missing_file_is_refused_by_name(write_pair, tmp_path, suffix):
    write_pair(tmp_path / "a", DOCUMENTS)
    (tmp_path / f"a{suffix}").unlink()
    with pytest.raises(UserError, match=rf"a\{suffix}: no such file"):
        open_pairs(tmp_path / "a")


@pytest.mark.parametrize(("token", "dtype"), [(100, "<u2"), (65535, "<u2"), (-1, "<i4"), (2**30, "<i4")])
def test_a_token_beyond_the_vocabulary_is_refused_where_it_is_read(write_pair, tmp_path, token, dtype):
    write_pair(tmp_path / "a", [[5, 6], [token, 7]], dtype)
    corpus = open_pairs(tmp_path / "a")
    assert corpus.document(0).tolist() == [5, 6]
    with pytest.raises(UserError, match=rf"a\.bin: holds token {token}; the vocabulary's tokens are 0 to 99"):
        corpus.document(1)
