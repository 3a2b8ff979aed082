"""A study small enough to train in a second, on text that is really tokenized."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipeline.base.paths import CORPUS, TOKENS
from pipeline.data import write_corpus, write_tokens
from pipeline.study import Study, load_study

PARAMS = """
name: tiny
corpus: {source: files, files: [text/*.txt], validation_fraction: 0.1, test_fraction: 0.1}
tokenize: {vocabulary: 300}
sizes:
  s: {layers: 2, width: 32}
variants:
  base: {}
grid:
  vanilla: {size: [s]}
  block: {size: [s], block_length: [4], variant: [base]}
pretrain:
  context_length: 32
  tokens: 5120
  batch_size: 8
  learning_rate: 0.01
  warmup_steps: 4
  validate_every: 10
  validation_tokens: 256
evaluate: {}
benchmark:
  settings:
    short: {prompt: 8, new_tokens: 8}
hardware: {accelerator: cpu, log_every: 2, checkpoint_every: 4}
"""
WORDS = [
    "the",
    "state",
    "of",
    "union",
    "is",
    "strong",
    "and",
    "our",
    "people",
    "work",
    "for",
    "peace",
    "with",
    "nation",
]


def write_texts(folder: Path) -> None:
    """Forty documents of two hundred words."""
    folder.mkdir()
    draw = random.Random(0)
    for number in range(40):
        text = " ".join(draw.choices(WORDS, weights=range(len(WORDS), 0, -1), k=200))
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml, data/corpus and data/tokens."""
    root = tmp_path_factory.mktemp("tiny")
    write_texts(root / "text")
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        study = load_study()
        write_corpus(study.corpus, CORPUS)
        write_tokens(study.tokenize, CORPUS, TOKENS)
    return root


@pytest.fixture
def tiny(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The study, in a working directory of the test's own."""
    (tmp_path / "data").symlink_to(tiny_root / "data")
    (tmp_path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return load_study()
