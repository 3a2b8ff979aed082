"""One row a cell: its three result records, checked against each other; one point a configuration, over its seeds."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from pipeline.analysis.families import ORDER, attention, family, kind
from pipeline.base.errors import UserError
from pipeline.base.paths import checkpoint, result
from pipeline.results.records import STAGES, BenchmarkResult, EvaluateResult, PretrainResult, read_result
from pipeline.study import Cell, Study, cells


@dataclass(frozen=True)
class Row:
    """A cell and what each stage recorded about it. ``attention`` says how its heads share keys and values, if so."""

    cell: Cell
    pretrain: PretrainResult
    evaluate: EvaluateResult
    benchmark: BenchmarkResult
    attention: str = ""

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.cell.name


@dataclass(frozen=True)
class Point:
    """A configuration: cells that differ in their seed only. Every comparison is between points.

    ``family`` is what shares a front, as :mod:`pipeline.analysis.families` has it: ``kind``, or kind and attention.
    ``series`` is what a curve of the figures joins: one family, block length and variant, over its sizes.
    """

    name: str
    family: str
    series: str
    size: str
    rows: tuple[Row, ...]

    @property
    def cell(self) -> Cell:
        """The cell of its first seed, for what all seeds share."""
        return self.rows[0].cell

    @property
    def kind(self) -> str:
        return kind(self.cell)


def load_rows(study: Study) -> list[Row]:
    """Every cell's row, in the grid's order.

    Raises :class:`UserError` for a missing result, for one that was measured on other weights than the cell's, and
    for cells that were scored on different documents or tokens, whose losses do not compare.
    """
    return _load(study, cells(study))


def load_finished(study: Study) -> tuple[list[Row], list[str]]:
    """The rows of the cells that have all three results, and the names of those that do not.

    Raises :class:`UserError` as :func:`load_rows` does, and where no cell is finished.
    """
    finished = [cell for cell in cells(study) if all(result(stage, cell.name).exists() for stage in STAGES)]
    if not finished:
        raise UserError(f"study {study.name}: no cell has all of its results yet; run `dvc repro`")
    return _load(study, finished), [cell.name for cell in cells(study) if cell not in finished]


def points(rows: list[Row]) -> list[Point]:
    """The rows joined over seeds, in the order of their first cells."""
    groups: dict[Cell, list[Row]] = {}
    for row in rows:
        groups.setdefault(dataclasses.replace(row.cell, seed=0), []).append(row)
    families = {cell: family(cell, group[0].attention) for cell, group in groups.items()}
    variants = {(name, cell.variant) for cell, name in families.items()}
    several = {name for name in ORDER if sum(name == other for other, _ in variants) > 1}
    return [
        Point(_point_name(cell), name, _series(cell, name, name in several), cell.size, tuple(groups[cell]))
        for cell, name in families.items()
    ]


def series_of(points: list[Point]) -> list[str]:
    """The series' labels by family, then by block length, then as the study has them."""
    rank = {
        point.series: (ORDER.index(point.family), point.cell.block_length or 0, number)
        for number, point in reversed(list(enumerate(points)))
    }
    return sorted(rank, key=lambda series: rank[series])


def read_curve(cell: str) -> dict[str, list[float]] | None:
    """The cell's training curve by column, ``nan`` where a step has no value; ``None`` where the file is absent."""
    import csv

    path = checkpoint(cell) / "curve.csv"
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as opened:
        records = list(csv.DictReader(opened))
    try:
        return {
            column: [float(record[column] or math.nan) for record in records]
            for column in (records[0] if records else {})
            if column != "time"
        }
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not a training curve ({error}); delete it and run stage pretrain again") from None


def _load(study: Study, wanted: list[Cell]) -> list[Row]:
    rows = [_load_row(study, cell) for cell in wanted]
    _check_same_targets(rows)
    return rows


def _load_row(study: Study, cell: Cell) -> Row:
    pretrain = read_result(result("pretrain", cell.name), PretrainResult, "pretrain")
    evaluate = read_result(result("evaluate", cell.name), EvaluateResult, "evaluate")
    benchmark = read_result(result("benchmark", cell.name), BenchmarkResult, "benchmark")
    for stage, record in (("evaluate", evaluate), ("benchmark", benchmark)):
        if record.cell.fingerprint != pretrain.cell.fingerprint:
            raise UserError(
                f"{result(stage, cell.name)}: measured on weights {record.cell.fingerprint!r}, but the cell's are "
                f"{pretrain.cell.fingerprint!r}; run `dvc repro` (stage {stage}) again"
            )
    return Row(cell, pretrain, evaluate, benchmark, attention(study, cell))


def _check_same_targets(rows: list[Row]) -> None:
    for row in rows[1:]:
        for key in ("documents_hash", "tokenizer_hash", "documents", "stride", "target_tokens"):
            expected, found = getattr(rows[0].evaluate, key), getattr(row.evaluate, key)
            if found != expected:
                raise UserError(
                    f"{result('evaluate', row.name)}: {key} is {found!r}, but {expected!r} for {rows[0].name}; "
                    f"losses compare on the same tokens only, so run `dvc repro` (stage evaluate) again"
                )


def _point_name(cell: Cell) -> str:
    """The cell's name without its seed."""
    return cell.name if cell.family == "pretrained" else cell.name.rpartition("-")[0]


def _series(cell: Cell, name: str, name_variant: bool) -> str:
    if cell.block_length is None:
        return name
    variant = f" {cell.variant}" if name_variant else ""
    return f"{name} L={cell.block_length}{variant}"
