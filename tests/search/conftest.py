"""The tiny study of the training tests, with a search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.study import Study, load_study
from pipeline.study.search_checks import check_searchable
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
Searching = Callable[..., Study]


@pytest.fixture
def searching(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searching:
    """Write params.yaml into a working directory of the test's own, with (old, new) texts replaced, and load it."""
    (tmp_path / "data").symlink_to(tiny_root / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def write(*edits: tuple[str, str]) -> Study:
        text = TEXT
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        Path("params.yaml").write_text(text, encoding="utf-8")
        study = load_study()
        check_searchable(study)
        return study

    return write
