"""One file is read once, copies are counted or left out, and nothing that is not seen is a document."""

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.data import CorpusManifest, read_documents, write_corpus
from pipeline.data.corpus import SPLITS
from pipeline.data.duplicates import Duplicates
from pipeline.data.foreign import check_pairs
from pipeline.data.source_files import expand
from pipeline.study.schema import Corpus
from stages.corpus import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with 60 documents in texts/a.jsonl."""
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    write(Path("texts/a.jsonl"), [f"document {number}" for number in range(60)])
    return tmp_path


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def corpus(files=("texts/*.jsonl",), **keys):
    return write_corpus(Corpus(source="files", files=list(files), **keys), Path("corpus"))


def texts_of():
    return {split: list(read_documents(Path("corpus"), split)) for split in SPLITS}


NAMES = {
    "symbolic link": (lambda: Path("texts/b.jsonl").symlink_to("a.jsonl"), ["texts/*.jsonl"]),
    "hard link": (lambda: os.link("texts/a.jsonl", "texts/b.jsonl"), ["texts/*.jsonl"]),
    "linked folder": (lambda: Path("more").symlink_to("texts"), ["texts/*.jsonl", "more/*.jsonl"]),
    "link to a link": (
        lambda: (Path("texts/b.jsonl").symlink_to("a.jsonl"), Path("texts/c.jsonl").symlink_to("b.jsonl")),
        ["texts/*.jsonl"],
    ),
    "absolute": (lambda: None, ["texts/a.jsonl", "{here}/texts/a.jsonl"]),
    "absolute glob first": (lambda: None, ["{here}/texts/*", "texts/a.jsonl"]),
    "through the parent": (lambda: None, ["texts/a.jsonl", "texts/../texts/a.jsonl"]),
    "dots": (lambda: None, ["./texts/a.jsonl", "texts//a.jsonl", "texts/./*.jsonl"]),
    "two globs": (lambda: None, ["texts/*", "**/a.*", "texts/[a]*.jsonl"]),
    "twice": (lambda: None, ["texts/a.jsonl", "texts/a.jsonl"]),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_several_names_is_read_once(folder, name):
    link, patterns = NAMES[name]
    link()
    manifest = corpus([pattern.format(here=folder) for pattern in patterns])
    assert sum(part.documents for part in manifest.splits.values()) == 60
    assert manifest.duplicate_documents == 0


def test_the_first_pattern_names_a_file_of_several_names(folder):
    Path("other").mkdir()
    Path("other/z.jsonl").symlink_to(folder / "texts/a.jsonl")
    assert expand(["other/*", "texts/*"]) == [Path("other/z.jsonl")]
    assert expand(["texts/*", "other/*"]) == [Path("texts/a.jsonl")]


@pytest.mark.parametrize("name", ["part[1].jsonl", "a*.jsonl", "what?.jsonl", "[!x].jsonl", "**.jsonl", "a[.jsonl"])
def test_a_path_that_exists_is_no_glob(name):
    write(Path("texts", name), ["only this"])
    write(Path("texts/part1.jsonl"), ["not this"])
    assert expand([f"texts/{name}"]) == [Path("texts", name)]
    Path("folder[1]").mkdir()
    write(Path("folder[1]/x.jsonl"), ["only this"])
    assert expand(["folder[1]/*.jsonl"]) == [Path("folder[1]/x.jsonl")]


@pytest.mark.parametrize("pattern", ["", "texts", "texts/", "texts/b[1].jsonl", "x" * 5000, "\x00", "texts/a.jsonl/*"])
def test_what_names_no_file_is_refused(pattern):
    with pytest.raises(UserError, match=r"corpus\.files: .* matches no file"):
        expand([pattern])


def test_copies_are_kept_and_counted_where_they_are():
    write(Path("texts/b.jsonl"), [f"document {number}" for number in range(0, 60, 2)])
    manifest = corpus(validation_fraction=0.1, test_fraction=0.1)
    texts = texts_of()
    counts = Counter(text for split in SPLITS for text in texts[split])
    assert manifest.duplicate_documents == sum(count - 1 for count in counts.values()) == 30
    for split in ("validation", "test"):
        expected = sum(text in texts["train"] for text in texts[split])
        assert manifest.splits[split].also_in_train == expected > 0
    assert manifest.splits["train"].also_in_train == 0
    assert CorpusManifest.read(Path("corpus")) == manifest


def test_a_copy_changes_no_other_documents_split():
    corpus()
    before = texts_of()
    write(Path("texts/z.jsonl"), ["document 3"])
    corpus()
    assert texts_of()["train"] == [*before["train"], "document 3"]


def test_without_copies_the_same_corpus_is_written_either_way():
    files = {}
    for deduplicate in (False, True):
        corpus(deduplicate=deduplicate)
        files[deduplicate] = {path.name: path.read_bytes() for path in Path("corpus").glob("*.zst")}
    assert files[False] == files[True]


def test_deduplicated_the_first_of_equal_documents_stays():
    corpus()
    before = texts_of()
    write(Path("texts/b.jsonl"), [f"document {number}" for number in range(60)])
    manifest = corpus(deduplicate=True)
    assert texts_of() == before
    assert (manifest.duplicate_documents, manifest.deduplicated) == (60, True)
    manifest = corpus(deduplicate=True, max_documents=40)
    assert sum(part.documents for part in manifest.splits.values()) == 40


@pytest.mark.parametrize(
    ("one", "other"),
    [("a b", "a  b"), ("é", "e\u0301"), ("A", "a"), ("a", "a "), ("a\n", "a\r\n"), ("a", "a\u200b"), ("ab", "b a")],
)
def test_texts_that_differ_in_a_letter_are_no_copies(one, other):
    found = Duplicates(SPLITS)
    assert [found.add(text, "train") for text in (one, other, one, other)] == [False, False, True, True]


def test_many_texts_are_counted_as_a_slow_count_does():
    random.seed(0)
    found, drawn, seen = Duplicates(SPLITS), [], set()
    for _ in range(20_000):
        text, split = str(random.randrange(8_000)), random.choice(SPLITS)
        assert found.add(text, split) == (text in seen)
        drawn.append((text, split))
        seen.add(text)
    train = {text for text, split in drawn if split == "train"}
    assert found.copies == len(drawn) - len({text for text, _ in drawn})
    for split in ("validation", "test"):
        assert found.also_in_train(split) == sum(text in train for text, other in drawn if other == split)
    assert found.also_in_train("train") == 0


INVISIBLE = [
    "",
    " \n\t",
    "\u200b",
    "\ufeff",
    "\u200b \u200d\u2060",
    "\x00\x01",
    "\xad",
    "\u2800",
    "\u3164",
    "\ufe0f",
    "\u3000",
    "\x85",
]


@pytest.mark.parametrize("text", INVISIBLE)
def test_a_document_of_nothing_that_is_seen_counts_as_empty(text):
    write(Path("texts/b.jsonl"), [text])
    manifest = corpus()
    assert manifest.empty_documents == 1
    assert sum(part.documents for part in manifest.splits.values()) == 60


@pytest.mark.parametrize("text", [".", "\u200b.", "\u0301", "\ufffd", "☃", "\ufe0f1", "﷽", "𐀀", "-", "\u00a0x"])
def test_a_document_with_a_character_is_kept_as_it_is(text):
    write(Path("texts/b.jsonl"), [text])
    manifest = corpus()
    assert manifest.empty_documents == 0
    assert any(text in texts for texts in texts_of().values())


def test_the_stage_says_what_copies_there_are(params_text, capsys):
    write(Path("texts/b.jsonl"), [f"document {number}" for number in range(60)])
    study = params_text.replace("source: sotu", "source: files").replace("files: []", 'files: ["texts/*.jsonl"]')
    for key, said in (
        (
            "",
            "60 exact copies kept, by which 6 of validation and 6 of test stand in train too (corpus.dedup",
        ),
        ("deduplicate: true\n  ", "60 exact copies left out"),
    ):
        Path("params.yaml").write_text(study.replace("max_documents:", f"{key}max_documents:", 1))
        main()
        assert said in capsys.readouterr().out


def test_a_pair_under_two_names_is_refused():
    for suffix in (".bin", ".idx"):
        Path(f"pile{suffix}").touch()
        Path(f"link{suffix}").symlink_to(f"pile{suffix}")
    check_pairs({"train": ["pile"], "validation": ["other"]})
    for indexed in (
        {"train": ["pile", "pile"]},
        {"train": ["pile", "pile.bin"]},
        {"train": ["pile"], "validation": ["pile"]},
        {"train": ["pile"], "validation": ["link"]},
        {"train": ["./pile", "texts/../pile.idx"]},
    ):
        with pytest.raises(UserError, match=r"is the same file as .*; name each file once"):
            check_pairs(indexed)
