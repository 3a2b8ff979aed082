"""A cell's training curve, read from its CSV file: by the training that goes on, MLflow and the report."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from pipeline.base.errors import UserError

TAIL = 2**16
"""Bytes at the end of a curve that hold its last row."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """The file's whole rows; none where it is absent. A line that a kill cut short is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    return [row for row in rows if None not in row.values()]


def last_row(path: Path) -> dict[str, str]:
    """The file's last whole row, without reading those before it; empty where there is none to read."""
    try:
        with path.open("rb") as opened:
            header = opened.readline()
            opened.seek(max(opened.seek(0, io.SEEK_END) - TAIL, len(header)))
            rows = opened.read().decode(errors="replace").split("\n")[:-1]
        return next(csv.DictReader([header.decode(), *rows[-1:]]), {})
    except (OSError, UnicodeDecodeError):  # absent, just being replaced, or damaged
        return {}


def read_curve(path: Path) -> dict[str, list[float]]:
    """The curve by column, ``nan`` where a step has no value; no columns where the file is absent or has no row.

    Raises :class:`UserError` where it is damaged.
    """
    try:
        rows = read_rows(path)
        return {name: [float(row[name] or math.nan) for row in rows] for name in (rows[0] if rows else {})}
    except (TypeError, ValueError) as error:  # also bytes that are no UTF-8
        raise UserError(f"{path}: not a training curve ({error}); delete it and run stage pretrain again") from None
