import json
import subprocess
import sys

import pytest

from pipeline.base.errors import UserError
from pipeline.data import CorpusManifest, corpus, read_documents, write_corpus
from pipeline.data.corpus import SPLITS, HeldOut, read_lines
from pipeline.study.schema import Corpus


@pytest.fixture
def source(tmp_path):
    """A study's corpus of numbered documents, every tenth line blank."""

    def make(documents: int, **keys) -> Corpus:
        path = tmp_path / "source.jsonl"
        lines = [json.dumps({"text": f"Document number {i}, ünïcode."}) for i in range(documents)]
        path.write_text("".join(line + "\n" + "\n" * (i % 10 == 9) for i, line in enumerate(lines)))
        return Corpus(**{"source": "files", "files": [str(path)], **keys})

    return make


@pytest.mark.parametrize(("validation", "test"), [(0.05, 0.05), (0.01, 0.1), (0.3, 0.07), (0.49, 0.49), (0.001, 0.001)])
@pytest.mark.parametrize("seed", [0, 1])
def test_splits_have_their_shares_and_spread_over_the_corpus(validation, test, seed):
    held_out = HeldOut(validation, test, seed)
    split = [held_out.split(i) for i in range(20_000)]
    assert abs(split.count("validation") - 20_000 * validation) <= 2
    assert abs(split.count("test") - 20_000 * test) <= 2
    for name, share in (("validation", validation), ("test", test)):
        places = [i for i, value in enumerate(split) if value == name]
        gaps = [after - before for before, after in zip([0, *places], [*places, 20_000], strict=True)]
        assert max(gaps) <= (1 / share) + 2 / (validation + test) + 2


def test_the_seed_decides_which_documents_are_held_out():
    first, again, other = (HeldOut(0.05, 0.05, seed) for seed in (0, 0, 1))
    splits = [[held_out.split(i) for i in range(1000)] for held_out in (first, again, other)]
    assert splits[0] == splits[1] != splits[2]
    assert first.split(500) == splits[0][500]


def test_every_document_lands_in_one_split_in_order(source, tmp_path):
    manifest = write_corpus(source(200), tmp_path / "corpus")
    texts = {split: list(read_documents(tmp_path / "corpus", split)) for split in SPLITS}
    assert {split: len(texts[split]) for split in SPLITS} == {"train": 180, "validation": 10, "test": 10}
    assert sorted(text for split in SPLITS for text in texts[split]) == sorted(
        f"Document number {i}, ünïcode." for i in range(200)
    )
    numbers = [int(text.split()[2][:-1]) for text in texts["train"]]
    assert numbers == sorted(numbers)
    assert manifest.empty_documents == 20
    for split in SPLITS:
        assert manifest.splits[split].documents == len(texts[split])
        assert manifest.splits[split].bytes == sum(len(text.encode()) for text in texts[split])
    assert CorpusManifest.read(tmp_path / "corpus") == manifest


def test_sotu_splits_share_the_centuries(tmp_path):
    manifest = write_corpus(Corpus(), tmp_path / "corpus")
    assert sum(split.documents for split in manifest.splits.values()) > 200
    for split in SPLITS:
        years = [int(json.loads(line)["origin"][:4]) for line in read_lines(tmp_path / "corpus", split)]
        assert min(years) < 1815
        assert max(years) > 1995


def test_the_same_study_writes_the_same_corpus(source, tmp_path):
    for name in ("a", "b"):
        write_corpus(source(50), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["manifest.json"] + [f"{split}-00000.jsonl.zst" for split in sorted(SPLITS)]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_large_splits_are_cut_into_files(source, tmp_path, monkeypatch):
    whole = write_corpus(source(50), tmp_path / "whole")
    monkeypatch.setattr(corpus, "SHARD_BYTES", 300)
    cut = write_corpus(source(50), tmp_path / "cut")
    assert cut.splits["train"].files == [f"train-{i:05d}.jsonl.zst" for i in range(5)]
    assert cut.splits["train"].sha256 == whole.splits["train"].sha256
    assert list(read_documents(tmp_path / "cut", "train")) == list(read_documents(tmp_path / "whole", "train"))


def test_max_documents_counts_those_that_are_kept(source, tmp_path):
    manifest = write_corpus(source(100, max_documents=45), tmp_path / "corpus")
    assert sum(split.documents for split in manifest.splits.values()) == 45
    assert manifest.empty_documents == 4


def test_a_few_documents_that_are_no_unicode_are_left_out_and_counted(source, tmp_path):
    path = tmp_path / "source.jsonl"
    write_corpus(source(200), tmp_path / "whole")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:7], b'{"text": "\xe4"}\n', *lines[7:], b'{"text": "\\ud800"}\n']))
    corpus = Corpus(source="files", files=[str(path)])
    manifest = write_corpus(corpus, tmp_path / "corpus")
    for split in SPLITS:
        assert list(read_documents(tmp_path / "corpus", split)) == list(read_documents(tmp_path / "whole", split))
    assert (manifest.invalid_documents, manifest.empty_documents) == (2, 20)
    assert manifest.first_invalid == f"{path}, line 8: not valid UTF-8 (byte 10: 0xe4)"
    with path.open("ab") as opened:
        opened.write(b'{"text": "\xe4"}\n')
    with pytest.raises(
        UserError, match=r"line 8: not valid UTF-8 .*; 3 of 203 documents are no valid Unicode, more than"
    ):
        write_corpus(corpus, tmp_path / "corpus")
    assert CorpusManifest.read(tmp_path / "corpus") == manifest


def test_a_corpus_too_small_to_split_is_refused(source, tmp_path):
    with pytest.raises(UserError, match="3 documents are too few to give split test one"):
        write_corpus(source(3, validation_fraction=0.3, test_fraction=0.3), tmp_path / "corpus")
    with pytest.raises(UserError, match="0 documents are too few"):
        write_corpus(source(0), tmp_path / "corpus")
    write_corpus(source(5, validation_fraction=0.3, test_fraction=0.3), tmp_path / "corpus")
    assert all(len(list(read_documents(tmp_path / "corpus", split))) for split in SPLITS)


def test_an_error_leaves_what_was_there(source, tmp_path):
    folder = tmp_path / "corpus"
    before = write_corpus(source(50), folder)
    broken = source(50)
    with (tmp_path / "source.jsonl").open("a") as opened:
        opened.write("{")
    with pytest.raises(UserError, match="line 56: not valid JSON"):
        write_corpus(broken, folder)
    assert CorpusManifest.read(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "source.jsonl"]


def test_what_a_killed_process_left_is_cleared(source, tmp_path):
    (tmp_path / ".corpus.partial").mkdir()
    (tmp_path / ".corpus.partial" / "train-00000.jsonl.zst").write_text("half")
    write_corpus(source(50), tmp_path / "corpus")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "source.jsonl"]


def test_a_missing_or_damaged_folder_names_the_stage(source, tmp_path):
    with pytest.raises(UserError, match="run `dvc repro corpus` first"):
        list(read_documents(tmp_path / "corpus", "train"))
    write_corpus(source(50), tmp_path / "corpus")
    path = tmp_path / "corpus" / "train-00000.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"train-00000.jsonl.zst: cannot be read .* run `dvc repro --force corpus`"):
        list(read_documents(tmp_path / "corpus", "train"))
    (tmp_path / "corpus" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="not a corpus manifest"):
        CorpusManifest.read(tmp_path / "corpus")


def test_data_needs_no_torch(root):
    """A stage process of corpus and tokenize starts without the heavy libraries."""
    code = (
        "import sys, pipeline.data, stages.corpus; print(sorted({'torch', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
