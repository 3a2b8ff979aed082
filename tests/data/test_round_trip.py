"""What a tokenizer changes is counted, what it loses is refused, and no text of a document ends it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pipeline.base.errors import UserError
from pipeline.data import Manifest, RoundTrip, TokenCorpus, load_tokenizer, write_corpus, write_tokens
from pipeline.data.round_trip import RoundTripCheck, sampled, stride
from pipeline.study.schema import Corpus, Tokenize

END = "<|endoftext|>"
GERMAN = "Größe, Übung: 漢字 - €5."
PLAIN = ["The plain text of a document", "is made of words", "and of some more"]


def byte_level(alphabet=True, **keys) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    tokenizer.train_from_iterator(
        PLAIN, trainers.BpeTrainer(vocab_size=300, special_tokens=[END], initial_alphabet=letters, show_progress=False)
    )
    for name, value in keys.items():
        setattr(tokenizer, name, value)
    return tokenizer


def word_pieces() -> Tokenizer:
    letters = sorted(set("".join(PLAIN).lower()) | set("donotin,.'"))
    pieces = ["[UNK]", END, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def sentencepiece(byte_fallback: bool) -> Tokenizer:
    pieces = [("<unk>", 0.0), (END, 0.0), *((letter, -2.0) for letter in sorted(set("▁" + "".join(PLAIN))))]
    pieces += [(f"<0x{byte:02X}>", -9.0) for byte in range(256)] if byte_fallback else []
    tokenizer = Tokenizer(models.Unigram(pieces, 0, byte_fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    return tokenizer


COMES_BACK, CHANGED, LOST = "comes back", "changed", "lost"
CASES = {
    "bytes": (byte_level(), GERMAN, COMES_BACK),
    "bytes, added token": (byte_level(), f"a {END} b", COMES_BACK),
    "bytes without umlauts": (byte_level(alphabet=False), GERMAN, LOST),
    "bytes without umlauts, plain text": (byte_level(alphabet=False), PLAIN[0], COMES_BACK),
    "bytes, nothing left": (byte_level(alphabet=False), "漢字", LOST),
    "bytes, lower case": (byte_level(normalizer=normalizers.Lowercase()), "Größe", CHANGED),
    "bytes, NFC": (byte_level(normalizer=normalizers.NFC()), "e\u0301", CHANGED),
    "bytes, NFKC": (byte_level(normalizer=normalizers.NFKC()), "ﬁ ½", CHANGED),
    "bytes, NFC of text that is so": (byte_level(normalizer=normalizers.NFC()), GERMAN, COMES_BACK),
    "bytes, spaces stripped": (byte_level(normalizer=normalizers.Strip()), "  a b ", CHANGED),
    "bytes, no decoder": (byte_level(decoder=decoders.Fuse()), "two words", LOST),
    "bytes, vowels split off": (
        byte_level(
            pre_tokenizer=pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex("[aeiou]"), "removed"), pre_tokenizers.ByteLevel(False)]
            )
        ),
        "plain",
        LOST,
    ),
    "word pieces": (word_pieces(), PLAIN[0], CHANGED),
    "word pieces, clean-up": (word_pieces(), "do not, so it is a document.", CHANGED),
    "word pieces, unknown": (word_pieces(), "a document 漢", LOST),
    "sentencepiece": (sentencepiece(False), PLAIN[0], COMES_BACK),
    "sentencepiece, white space": (sentencepiece(False), "  of  some ", CHANGED),
    "sentencepiece, unknown": (sentencepiece(False), "of 漢", LOST),
    "sentencepiece, byte fallback": (sentencepiece(True), "of 漢", COMES_BACK),
}


@pytest.mark.parametrize("name", CASES)
def test_what_comes_back_what_is_changed_and_what_is_lost(name):
    tokenizer, text, expected = CASES[name]
    tokenizer.encode_special_tokens = True
    outcome = RoundTripCheck(tokenizer).outcome(text, tokenizer.encode(text, add_special_tokens=False).ids)
    assert (LOST if outcome.lost else CHANGED if outcome.changed else COMES_BACK) == expected
    assert not outcome.lost or outcome.changed


@pytest.mark.parametrize("documents", [0, 1, 2, 999, 1000, 1001, 2500, 10**8])
def test_a_sample_is_bounded_and_spread(documents):
    assert sampled(documents) == len(range(0, documents, stride(documents))) <= 1000
    assert sampled(documents) >= min(documents, 500)


@pytest.fixture
def corpus(tmp_path):
    """A corpus folder of those texts among plain ones, 200 in all."""

    def make(texts):
        lines = [*texts, *(f"{PLAIN[number % 3]} {'and' * (number + 1)}" for number in range(200 - len(texts)))]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        write_corpus(Corpus(source="files", files=[str(tmp_path / "a.jsonl")]), tmp_path / "corpus")
        return tmp_path

    return make


def tokenize(tokenizer, folder, processes=1) -> Manifest:
    tokenizer.save(str(folder / "own.json"))
    settings = Tokenize(tokenizer=str(folder / "own.json"), end_of_text=END)
    return write_tokens(settings, folder / "corpus", folder / "tokens", processes)


def test_a_tokenizer_that_loses_text_is_refused_with_the_share(corpus):
    folder = corpus(["some ö and ü"] * 3)
    message = r"own\.json' loses text: 3 of 100 sampled .* \(first U\+00F6 in 'a\.jsonl:1'\), more than 1%"
    with pytest.raises(UserError, match=message) as caught:
        tokenize(byte_level(alphabet=False), folder)
    assert str(caught.value).isprintable()
    assert not (folder / "tokens").exists()


def test_a_little_that_is_lost_and_what_is_changed_are_counted(corpus):
    assert tokenize(byte_level(alphabet=False), corpus([GERMAN] * 2)).round_trip == RoundTrip(200, 2, 2)
    assert tokenize(byte_level(), corpus([GERMAN] * 5)).round_trip == RoundTrip(200, 0, 0)
    folder = corpus(["a small beginning"] * 5)
    manifest = tokenize(byte_level(normalizer=normalizers.Lowercase()), folder)
    assert manifest.round_trip == RoundTrip(200, 65, 0)
    assert Manifest.read(folder / "tokens") == manifest


def test_the_stage_says_what_is_changed(corpus, params_text, root):
    folder = corpus([])
    byte_level(normalizer=normalizers.Lowercase()).save(str(folder / "own.json"))
    (folder / "data").mkdir()
    (folder / "corpus").rename(folder / "data" / "corpus")
    (folder / "params.yaml").write_text(params_text.replace("tokenizer: null", "tokenizer: own.json"))
    command = [sys.executable, "-m", "stages.tokenize"]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert "; 67 of 200 sampled documents come back from their tokens changed: bits per byte counts text" in done.stdout


TEXT_WITH_END = f"before {END} after"


PLAIN_ENDS = [END, AddedToken(END, special=False), AddedToken(END, lstrip=True, rstrip=True)]
OTHER_ENDS = [
    AddedToken(END, lstrip=True),
    AddedToken(END, rstrip=True),
    AddedToken(END, single_word=True),
    AddedToken(END, normalized=True),
    AddedToken(END, normalized=False, special=False),
]
SLOW_ENDS = [pytest.param(token, marks=pytest.mark.slow) for token in OTHER_ENDS]


@pytest.mark.parametrize("token", PLAIN_ENDS + SLOW_ENDS)
def test_end_of_text_in_a_document_is_text_though_its_token_is_not_special(corpus, token):
    folder = corpus([TEXT_WITH_END] * 60)
    tokenizer = byte_level()
    settings = json.loads(tokenizer.to_str())
    settings["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    tokenizer.add_tokens([token])
    end = tokenizer.token_to_id(END)
    assert end in tokenizer.encode(TEXT_WITH_END).ids
    manifest = tokenize(tokenizer, folder)
    assert manifest.end_of_text == end
    assert manifest.round_trip.changed == 0
    for split in manifest.splits:
        loaded = TokenCorpus.open(folder / "tokens", split)
        assert not any((loaded.document(number) == end).any() for number in range(len(loaded)))
    # What is saved, for models and prompts, takes it for text too.
    assert end not in load_tokenizer(folder / "tokens").encode(TEXT_WITH_END).ids


def as_a_piece() -> Tokenizer:
    """A sentencepiece model that has end of text among the pieces of text."""
    return sentencepiece(True)


def as_the_unknown_token() -> Tokenizer:
    settings = json.loads(byte_level(alphabet=False).to_str())
    settings["model"]["unk_token"] = END
    return Tokenizer.from_str(json.dumps(settings))


@pytest.mark.parametrize("make", [as_a_piece, as_the_unknown_token])
def test_a_model_that_makes_end_of_text_of_text_is_refused_by_document(corpus, make):
    folder = corpus(["plain", f"a {END} 漢字"])
    with pytest.raises(UserError, match=r"'a\.jsonl:2': the tokenizer makes '<\|endoftext\|>' of text within"):
        tokenize(make(), folder)
    assert not Path(folder / "tokens").exists()


def test_a_special_end_of_text_leaves_the_tokenizer_as_it_is(corpus):
    folder = corpus([TEXT_WITH_END])
    tokenize(byte_level(), folder)
    own, saved = (json.loads((folder / name).read_text()) for name in ("own.json", "tokens/tokenizer.json"))
    assert own == saved
