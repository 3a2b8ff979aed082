import gzip
import json
import lzma
import os
import re
import shutil
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.base.errors import UserError
from pipeline.data import sources
from pipeline.data.source_files import expand
from pipeline.data.sources import read_source
from pipeline.study.schema import Corpus, Dataset

TEXTS = ["First document.", "Zweites Dokument: äöü €", "third\nwith\nlines \x00 and NUL", "", "   \n\t"]


def compress(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    if suffix == ".xz":
        return lzma.compress(data)
    if suffix == ".zst":
        return pa.compress(data, "zstd", asbytes=True)
    return data


def jsonl(texts, field="text"):
    return "".join(json.dumps({"id": i, field: text}) + "\n" for i, text in enumerate(texts)).encode()


def texts_of(**keys):
    return [document.text for document in read_source(Corpus(source="files", **keys))]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_json_lines_compressed_or_not(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(compress(jsonl(TEXTS), suffix))
    assert texts_of(files=[str(path)]) == TEXTS
    # Files put together from compressed pieces are one stream.
    path.write_bytes(compress(jsonl(TEXTS), suffix) * 2)
    assert texts_of(files=[str(path)]) == TEXTS * 2


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"content": TEXTS * 100, "id": range(500)}), path, row_group_size=70)
    assert texts_of(files=[str(path)], text_field="content") == TEXTS * 100


def test_globs_take_each_file_once_in_order(tmp_path):
    for name in ("b/two.txt", "a/one.txt", "a/deep/er.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    patterns = [str(tmp_path / "**" / "*.txt"), str(tmp_path / "a" / "one.txt")]
    assert texts_of(files=patterns) == ["a/deep/er.txt", "a/one.txt", "b/two.txt"]


def test_sotu_spans_the_centuries():
    documents = list(read_source(Corpus()))
    assert len(documents) > 200
    years = [int(document.origin[:4]) for document in documents]
    assert years == sorted(years)
    assert years[0] == 1790
    assert years[-1] > 2000
    assert documents[0].text.startswith("Fellow-Citizens")


def test_hugging_face_dataset_is_streamed(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "train.jsonl").write_bytes(jsonl(TEXTS, "body"))
    corpus = Corpus(source="huggingface", dataset=Dataset(str(tmp_path)), text_field="body")
    assert [document.text for document in read_source(corpus)] == TEXTS
    for wrong, message in (
        (Corpus(source="huggingface", dataset=Dataset(str(tmp_path)), text_field="txt"), "record 1: no field 'txt'"),
        (Corpus(source="huggingface", dataset=Dataset(str(tmp_path), split="dev"), text_field="body"), "dev"),
        (Corpus(source="huggingface", dataset=Dataset(str(tmp_path), "de"), text_field="body"), "'de'"),
        (Corpus(source="huggingface", dataset=Dataset(str(tmp_path / "no")), text_field="body"), "cannot be read"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            list(read_source(wrong))
        assert "corpus.dataset" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_pattern_without_a_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"corpus.files: '.*nothing\*' matches no file"):
        expand([str(tmp_path / "nothing*")])
    (tmp_path / "a.csv").touch()
    with pytest.raises(UserError, match=r"a\.csv' has an unknown ending"):
        expand([str(tmp_path / "a.csv")])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"body": "x"}', "no field 'text'; set corpus.text_field to one of body"),
        (b"{}", "none present"),
        (b'{"text": 3}', "field 'text' holds int, not text"),
        (b'{"text": null}', "field 'text' holds NoneType, not text"),
        (b'{"text": ["a"]}', "field 'text' holds list, not text"),
        (b'{"text": "a', "not valid JSON"),
        (b"[" * 100_000, "the beginning of an array"),
        (b"[", "the beginning of an array; a .jsonl file holds one JSON object a line"),
        (b'[{"text": "a"},', "the beginning of an array"),
        (b'[{"text": "a"}, {"text": "b"}]', "an array, not an object"),
        (b'"text"', "a string, not an object"),
        (b"null", "null, not an object"),
        (b"3.5", "a number, not an object"),
        (b'{"text": "a", "text": "b"}', "has field 'text' 2 times; which of them is the text"),
        (b'{"text": "a", "\\u0074ext": "a", "text": ""}', "has field 'text' 3 times"),
        (b'["text"]', "an array, not an object; a .jsonl file holds one"),
        (b'{"text": "' + b"x" * 3000 + b'"}', "longer than"),
    ],
)
def test_a_bad_record_is_refused_by_file_and_line(tmp_path, monkeypatch, line, message):
    if b"xxx" in line:
        monkeypatch.setattr(sources, "LONGEST_DOCUMENT", 2000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n\n' + line + b"\n")
    with pytest.raises(UserError, match=message) as caught:
        texts_of(files=[str(path)])
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"text": "\xff"}', "not valid UTF-8 (byte 10: 0xff)"),
        (b'{"text": "\\ud800"}', "field 'text' holds half a surrogate pair, which is not valid Unicode"),
    ],
)
def test_what_is_no_unicode_has_no_text_and_says_where(tmp_path, line, fault):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b'\n{"text": "also good"}\n')
    documents = list(read_source(Corpus(source="files", files=[str(path)])))
    assert [document.text for document in documents] == ["good", "", "also good"]
    assert [document.fault for document in documents] == ["", f"{path}, line 2: {fault}", ""]


def test_a_text_file_that_is_no_unicode_has_no_text_and_says_where(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good \xe4 bad")
    (document,) = read_source(Corpus(source="files", files=[str(path)]))
    assert (document.text, document.fault) == ("", f"{path}: not valid UTF-8 (byte 5: 0xe4)")


def test_a_bad_text_file_is_refused_by_name(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_bytes(b"longer")
    monkeypatch.setattr(sources, "LONGEST_DOCUMENT", 5)
    with pytest.raises(UserError, match=re.escape(f"{path}: a document is longer than")):
        texts_of(files=[str(path)])


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("keep", [1, 0.5, 0.9, -1])
def test_a_truncated_archive_is_refused_by_name(tmp_path, suffix, keep):
    data = compress(jsonl([os.urandom(200).hex() for _ in range(200)]), suffix)
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(UserError, match=re.escape(f"{path}: cannot be read to its end")):
        texts_of(files=[str(path)])


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_an_archive_that_is_none_is_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(b"no archive at all" * 20)
    with pytest.raises(UserError, match=re.escape(f"{path}: not of ")):
        texts_of(files=[str(path)])


@pytest.mark.parametrize("keep", [3, 0.3, 0.9, -1])
def test_a_truncated_parquet_file_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [os.urandom(20).hex() for _ in range(500)]}), path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(UserError, match=re.escape(str(path))):
        texts_of(files=[str(path)])


def test_parquet_of_another_form_is_refused_by_name(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", None]}), path)
    with pytest.raises(UserError, match=re.escape(f"{path}, row 2: field 'text' holds NoneType")):
        texts_of(files=[str(path)])
    with pytest.raises(UserError, match=re.escape(f"{path}: no field 'body'; set corpus.text_field to one of text")):
        texts_of(files=[str(path)], text_field="body")


def test_memory_holds_one_document_at_a_time(tmp_path):
    """Reading stops where the reader stops: the damaged end of a file is never reached."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(["good"] * 3) + b"bad")
    documents = read_source(Corpus(source="files", files=[str(path)]))
    assert [next(documents).origin for _ in range(3)] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]
    with pytest.raises(UserError):
        next(documents)


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": 1, "id": 2, "text": "a"}',
        b'{"meta": {"text": "x", "text": "y"}, "text": "a"}',
        b'{"text": "a", "texts": [{"text": 1}], "Text": 2}',
        b'{"a": [{"b": 1, "b": 2}], "text": "a"}\r',
    ],
)
def test_other_fields_may_stand_twice(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(line)
    assert texts_of(files=[str(tmp_path / "a.jsonl")]) == ["a"]


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_byte_order_marks_at_the_start_of_lines_are_dropped(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(
        compress(MARK + jsonl(["one", "\ufeffkept"]) + MARK + b"\n" + MARK + jsonl(["two"]) + MARK, suffix)
    )
    assert texts_of(files=[str(path)]) == ["one", "\ufeffkept", "", "two", ""]


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"text", "text"), (b"", ""), (b"\n text", "\n text"), (MARK, "\ufeff"), (b" " + MARK, " \ufeff")],
)
def test_the_byte_order_mark_of_a_text_file_is_dropped_once(tmp_path, content, text):
    (tmp_path / "a.txt").write_bytes(MARK + content)
    assert texts_of(files=[str(tmp_path / "a.txt")]) == [text]


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_utf_16_is_named(tmp_path, name, mark):
    (tmp_path / name).write_bytes(mark + b"t\x00e\x00")
    (document,) = read_source(Corpus(source="files", files=[str(tmp_path / name)]))
    assert f"not valid UTF-8 (it begins as UTF-16 does; byte 0: {mark[0]:#x})" in document.fault


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", gzip.compress(b"x", mtime=0), "a gzip file, not text; give it the ending .jsonl.gz"),
        ("a.jsonl", lzma.compress(b"x"), "a xz file, not text; give it the ending .jsonl.xz"),
        ("a.jsonl", pa.compress(b"x" * 99, "zstd", asbytes=True), "give it the ending .jsonl.zst"),
        ("a.jsonl", b"PK\x03\x04" + bytes(30), "a zip file, not text; unpack it first"),
        ("a.txt", gzip.compress(b"x", mtime=0), "a gzip file, not text; unpack it first"),
        ("a.jsonl.gz", jsonl(TEXTS), "not of gzip's format, as its ending says; it is compressed otherwise, or not"),
        (
            "a.jsonl.zst",
            gzip.compress(b"x", mtime=0),
            "not of zstd's format, as its ending says; its first bytes are those of gzip",
        ),
        ("a.jsonl.xz", POINTER, "a Git LFS pointer, not the file it stands for; fetch that with `git lfs pull`"),
        ("a.jsonl", POINTER, "a Git LFS pointer"),
        ("a.txt", POINTER, "a Git LFS pointer"),
        ("a.parquet", POINTER, "a Git LFS pointer"),
    ],
)
def test_a_file_that_is_something_else_says_so(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        texts_of(files=[str(tmp_path / name)])
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")
@pytest.mark.parametrize(("long", "read"), [(24, True), (27, True), (28, False), (31, False)])
def test_a_zstd_window_that_is_too_long_is_named(tmp_path, long, read):
    path = tmp_path / "a.jsonl.zst"
    # From a pipe, so that zstd does not know that a shorter window would do.
    with path.open("wb") as opened:
        subprocess.run(["zstd", "-q", f"--long={long}"], input=jsonl(TEXTS), stdout=opened, check=True)
    if read:
        assert texts_of(files=[str(path)]) == TEXTS
        return
    with pytest.raises(
        UserError, match=r"its zstd window is longer than the 128 MiB that are read .* --long=27 or less"
    ):
        texts_of(files=[str(path)])


def test_a_parquet_column_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    with pytest.raises(UserError, match="has column 'text' 2 times; which of them is the text"):
        texts_of(files=[str(path)])
