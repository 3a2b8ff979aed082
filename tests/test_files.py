"""Files are whole or absent, and what killed writers left is removed."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from pipeline.base.files import replacing, write_text


def test_what_a_killed_writer_left_is_removed_and_what_another_is_writing_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".a.txt.8charsxx"
    left.write_text("half")
    with replacing(tmp_path / "a.txt") as being_written:
        write_text(tmp_path / "a.txt", "whole")
        assert being_written.exists()
        assert not left.exists()
        being_written.write_text("later")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "later"}


def test_a_file_system_without_locks_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for text in ("one", "two"):
        write_text(tmp_path / "a.txt", text)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "two"}
