"""A small and a large study with results that nobody trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import study_file, write_results

from pipeline.analysis.table import Row, load_rows
from pipeline.study import Study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Two sizes of vanilla and of block lengths 2, 4 and 8, with every result written."""
    monkeypatch.chdir(tmp_path)
    made = study_file(tmp_path, {"s": (4, 128), "m": (6, 192)}, [2, 4, 8])
    write_results(made)
    return made


@pytest.fixture
def rows(study: Study) -> list[Row]:
    return load_rows(study)
