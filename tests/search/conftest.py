"""The tiny study of the training tests, with a search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.study import Study, load_study
from pipeline.study.search_checks import check_searchable
from pipeline.study.tune_checks import check_tunable
from tests.training.conftest import PARAMS, tiny_root

__all__ = ["tiny_root"]

SEARCH = """
search:
  trials: 3
  objectives: [loss, tokens_per_second]
  setting: short
  size: s
  variant: base
  space: {block_length: [2, 4], block_layers: [1, 2], token_layers: [1, 2],
          token_width: [32, 64], prefix_length: [1, 2]}
  enqueue: [{block_length: 4}]
  tokens: 2560
"""
TEXT = PARAMS.replace("benchmark:\n", "benchmark:\n  batch_sizes: [2]\n  repeats: 1\n") + SEARCH
TUNE = """
tune:
  models: [vanilla-s, block-s-4-base]
  space: {learning_rate: [0.004, 0.01, 0.025]}
  trials: 3
  rounds: 1
  tokens: 2560
  storage: tune/journal
"""
TUNED = PARAMS.replace(
    "layers: 2, width: 32}\n",
    "layers: 2, width: 32}\n  m: {layers: 2, width: 64}\n  l: {layers: 2, width: 128}\n  xl: {layers: 2, width: 256}\n",
)
TUNED = TUNED.replace("size: [s]", "size: [s, m, l, xl]") + TUNE  # fmt: skip
Searching = Callable[..., Study]


@pytest.fixture
def workplace(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own, with the tiny study's tokens."""
    (tmp_path / "data").symlink_to(tiny_root / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def written(text: str, edits: tuple[tuple[str, str], ...]) -> Study:
    """The study of a text, with (old, new) parts replaced, as params.yaml."""
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    Path("params.yaml").write_text(text, encoding="utf-8")
    return load_study()


def writer(text: str, check: Callable[[Study], None]) -> Searching:
    """Writes params.yaml as ``text`` has it, with (old, new) texts replaced, and loads it."""

    def write(*edits: tuple[str, str]) -> Study:
        study = written(text, edits)
        check(study)
        return study

    return write


@pytest.fixture
def searching(workplace: Path) -> Searching:
    """A study with a search."""
    return writer(TEXT, check_searchable)


@pytest.fixture
def tuning(workplace: Path) -> Searching:
    """A study with a tuning and four sizes."""
    return writer(TUNED, check_tunable)
