"""Fixtures that every part's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture
def params_text() -> str:
    """The repository's own params.yaml, to edit."""
    return (ROOT / "params.yaml").read_text(encoding="utf-8")
