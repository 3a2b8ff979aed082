"""Fixtures that every part's tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# One thread a test process: the tests share the cores among themselves.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell's background job ignores Ctrl-C, and so would the processes that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture
def params_text() -> str:
    """A small, well-formed study to edit; its values do not change with the repository's params.yaml."""
    return (ROOT / "tests/params.yaml").read_text(encoding="utf-8")
