"""The curve file and the progress line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pipeline.base.progress import Progress
from pipeline.training.curve import Curve, Row, read_rows


def row(step: int, positions: int = 1) -> Row:
    return Row(step, 100 * step, 3.25, 1e-3, None, 0.5, 1234.5, None, 0.25, 2**20, 1000 + step, [3.0] * positions)


def test_rows_beyond_the_step_resumed_at_and_lines_cut_short_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    first = Curve(path, 0, 1)
    for step in (2, 4, 6):
        first.append(row(step))
    path.write_text(path.read_text()[:-9])
    assert [each["step"] for each in read_rows(path)] == ["2", "4"]
    again = Curve(path, 2, 1)
    again.append(row(4))
    assert [(each["step"], each["tokens"], each["validation_loss"]) for each in read_rows(path)] == [
        ("2", "200", ""),
        ("4", "400", ""),
    ]


def test_block_models_have_a_column_for_each_position(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "curve.csv", 0, 2)
    curve.append(row(1, positions=2))
    (written,) = read_rows(tmp_path / "curve.csv")
    assert (written["loss_1"], written["loss_2"]) == ("3", "3")
    assert list(read_rows(tmp_path / "curve.csv")[0])[:3] == ["step", "tokens", "train_loss"]


def test_a_log_holds_the_last_step_and_not_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress("cell", 100, stream)
    for step in range(1, 101):
        now[0] = step * 1.0
        progress.show(step, "loss 3.1")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 7
    assert lines[0] == "cell  step 16/100  loss 3.1  1:24 left"
    assert lines[-1] == "cell  step 100/100  loss 3.1  0:00 left"
