"""Generated texts of associative recall."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pipeline.base.errors import UserError
from pipeline.data import read_documents, write_corpus
from pipeline.data.corpus import SPLITS
from pipeline.data.recall import CITIES, NUMBERS, recall_texts
from pipeline.data.tokenizer import train_tokenizer
from pipeline.evaluation import recall
from pipeline.study import checks, load_study
from pipeline.study.schema import Corpus, RecallTexts
from tests.training.conftest import PARAMS

COUNT = 400


def texts(seed: int = 0, *pairs: int) -> list[str]:
    return list(islice(recall_texts(pairs or (2, 5), seed), COUNT))


def test_a_seed_makes_the_same_texts_and_another_one_others() -> None:
    assert texts() == texts()
    assert not set(texts()) & set(texts(1))


def test_every_question_has_its_answer_in_the_list() -> None:
    found = Counter()
    for text in texts():
        listed, asked = (part.splitlines() for part in text.rstrip("\n").split("\n\n"))
        pairs = [line.split(" ") for line in listed]
        assert sorted(asked) == sorted(listed)
        assert {city for city, _ in pairs} <= set(CITIES)
        assert {int(number) for _, number in pairs} <= set(NUMBERS)
        assert len({city for city, _ in pairs}) == len({number for _, number in pairs}) == len(pairs)
        found[len(pairs), asked == listed] += 1
    assert 0.4 * COUNT < found[5, True] + found[5, False] < 0.6 * COUNT
    assert found[5, True] < 0.05 * COUNT  # the order of the questions tells nothing
    assert 0.15 * COUNT < found[2, True] < 0.35 * COUNT


def test_questions_fill_texts_of_one_length_with_few_symbols() -> None:
    made = list(islice(recall_texts([2, 4, 8], 0, 18, 16), COUNT))
    assert made == list(islice(recall_texts([2, 4, 8], 0, 18, 16), COUNT))
    sizes: set[int] = set()
    pairs: set[tuple[str, str]] = set()
    for text in made:
        listed, asked = (part.splitlines() for part in text.rstrip("\n").split("\n\n"))
        assert len(listed) + len(asked) == 18
        assert set(asked) <= set(listed)
        lines = [(city, number) for city, number in map(str.split, listed)]
        assert len({city for city, _ in lines}) == len(lines)
        sizes.add(len(lines))
        pairs |= set(lines)
    assert sizes == {2, 4, 8}
    assert {city for city, _ in pairs} == set(CITIES[:16])
    assert {int(number) for _, number in pairs} == set(NUMBERS[:16])


def test_splits_share_no_text_and_are_the_seed_s(tmp_path: Path) -> None:
    corpus = Corpus(source="recall", recall=RecallTexts([2, 3]), max_documents=COUNT, deduplicate=True, seed=3)
    for name in ("one", "other"):
        manifest = write_corpus(corpus, tmp_path / name)
    splits = {split: list(read_documents(tmp_path / "one", split)) for split in SPLITS}
    assert sum(map(len, splits.values())) == len(set().union(*map(set, splits.values()))) == COUNT
    assert manifest.splits == write_corpus(corpus, tmp_path / "other").splits


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return train_tokenizer(islice(recall_texts([16], 0), 500), 512, "<|endoftext|>")


def test_a_word_is_a_token_and_a_line_three(words: Tokenizer) -> None:
    for text in texts():
        assert len(words.encode(text).ids) == 3 * text.count("\n") - 2  # the blank line is one
    assert words.get_vocab_size() < 512


def test_the_probe_asks_the_same_texts_at_every_offset_and_none_of_the_corpus(words: Tokenizer) -> None:
    asked = recall._questions(words, 8, 50, None, 0)
    answered = {words.decode(question[0].tokens) + "\n" for question in asked}
    every = set(islice(recall_texts([2, 4, 8], 0), 10_000))
    assert {len(text.split("\n\n")[1].splitlines()) for text in answered} == set(range(1, 9))
    assert not any(text in every for text in answered)
    assert {question[0].first % 8 for question in asked} == set(range(8))


def test_as_many_pairs_as_there_are_cities() -> None:
    assert checks.MOST_PAIRS == len(CITIES) <= len(NUMBERS)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (
            "{source: recall, max_documents: 5}",
            "corpus.recall.pairs: [] is wrong; source 'recall' needs numbers of pairs",
        ),
        ("{source: recall, recall: {pairs: [0]}, max_documents: 5}", "corpus.recall.pairs: 0 is wrong; a text lists 1"),
        ("{source: recall, recall: {pairs: [31]}, max_documents: 5}", "31 is wrong; a text lists 1 to 30 pairs"),
        (
            "{source: recall, recall: {pairs: [2, 9], symbols: 8}, max_documents: 5}",
            "corpus.recall.pairs: 9 is wrong; a text lists 1 to 8 pairs",
        ),
        (
            "{source: recall, recall: {pairs: [2], symbols: 31}, max_documents: 5}",
            "corpus.recall.symbols: 31 is wrong; it is 2 to 30, or null for all",
        ),
        (
            "{source: recall, recall: {pairs: [2, 4], lines: 4}, max_documents: 5}",
            "corpus.recall.lines: 4 is wrong; a text of 4 pairs has more lines",
        ),
        ("{source: recall, recall: {pairs: [2]}}", "corpus.max_documents: None is wrong; source 'recall' has no end"),
        ("{source: recal}", "corpus.source: 'recal' is wrong; did you mean 'recall'?"),
    ],
)
def test_a_corpus_that_is_none_is_refused(tmp_path: Path, corpus: str, message: str) -> None:
    before = "corpus: {source: files, files: [text/*.txt], validation_fraction: 0.1, test_fraction: 0.1}"
    assert before in PARAMS
    (tmp_path / "params.yaml").write_text(PARAMS.replace(before, f"corpus: {corpus}"))
    with pytest.raises(UserError) as refused:
        load_study(tmp_path / "params.yaml")
    assert message in str(refused.value)
