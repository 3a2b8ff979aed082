"""The training curve as CSV, appended while training goes; each step stands once."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.files import write_text
from pipeline.results.curve import read_rows


@dataclass(frozen=True)
class Row:
    """What happened since the row before.

    Losses in nats per target token, ``loss_by_position`` for each position of a block (one for a vanilla model);
    ``matrix_learning_rate`` is that of the layers' matrices where the optimizer has one of its own for them;
    ``utilization`` is model FLOPs against those of a large matrix product; ``time`` in ms since 1970; memory in bytes.
    """

    step: int
    tokens: int
    train_loss: float
    learning_rate: float
    matrix_learning_rate: float | None
    gradient_norm: float
    tokens_per_second: float
    validation_loss: float | None
    utilization: float
    memory: int
    time: int
    loss_by_position: list[float]


FIELDS = [field.name for field in dataclasses.fields(Row) if field.name != "loss_by_position"]


class Curve:
    """The file, opened at a step: rows of later steps, from a run that was cut off, are dropped."""

    def __init__(self, path: Path, step: int, block_length: int) -> None:
        self.path = path
        names = FIELDS + [f"loss_{position}" for position in range(1, block_length + 1) if block_length > 1]
        kept = [row for row in read_rows(path) if int(row["step"]) <= step and list(row) == names]
        write_text(path, _csv([names, *(row.values() for row in kept)]))

    def append(self, row: Row) -> None:
        """Add a row to the file at once."""
        values = [getattr(row, name) for name in FIELDS]
        if len(row.loss_by_position) > 1:
            values += row.loss_by_position
        line = _csv([["" if value is None else _text(value) for value in values]])
        with self.path.open("a", encoding="utf-8", newline="") as opened:
            opened.write(line)


def _text(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _csv(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
