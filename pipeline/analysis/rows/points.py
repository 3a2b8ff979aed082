"""One row per cell, with its three records; one point per configuration, over its seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.analysis.rows.families import ORDER, family, kind
from pipeline.results.records import BenchmarkResult, EvaluateResult, PretrainResult
from pipeline.study import Cell
from pipeline.study.schema import Pretrain, Tuning


@dataclass(frozen=True)
class Row:
    """A cell and what each stage recorded about it. ``attention`` says how its heads share keys and values, if so.

    ``benchmark`` may be another seed's: its own ``cell`` says whose. It has no setting where the model is not
    ``timed``, as no cell with a budget is.
    ``curve`` is its training curve by column, ``nan`` where a step has no value. ``remark`` says what of it is lost.
    ``recipe`` is what the study trains it with, ``tuning`` how that was found; a model trained elsewhere has neither.
    """

    cell: Cell
    pretrain: PretrainResult
    evaluate: EvaluateResult
    benchmark: BenchmarkResult
    attention: str = ""
    curve: dict[str, list[float]] = field(default_factory=dict, repr=False, compare=False)
    remark: str = ""
    recipe: Pretrain | None = None
    tuning: Tuning | None = None

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.cell.name

    @property
    def borrows(self) -> bool:
        """Whether its benchmark is that of another seed."""
        return self.benchmark.cell.name != self.name

    @property
    def timed(self) -> bool:
        """Whether it has a speed, its own or another seed's: it then takes part in what compares speeds."""
        return bool(self.benchmark.settings)


@dataclass(frozen=True)
class Point:
    """A configuration: cells that differ in their seed only. Every comparison is between points.

    ``family`` is what shares a front, as ``families.py`` has it: ``kind``, or kind and attention.
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


def trained_points(rows: list[Row]) -> list[Point]:
    """The points of what was trained to its end, budgets too."""
    return points([row for row in rows if not row.pretrain.diverged])


def whole_points(points: list[Point]) -> list[Point]:
    """The points that are compared: those without a budget."""
    return [point for point in points if point.cell.budget is None]


def timed(rows: Iterable[Row]) -> list[Row]:
    """The rows that have a speed."""
    return [row for row in rows if row.timed]


def timed_points(points: Iterable[Point]) -> list[Point]:
    """The points that have a speed: of a model's seeds all or none do."""
    return [point for point in points if all(row.timed for row in point.rows)]


def series_of(points: list[Point]) -> list[str]:
    """The series' labels by family, then by block length, then as the study has them."""
    rank = {
        point.series: (ORDER.index(point.family), point.cell.block_length or 0, number)
        for number, point in reversed(list(enumerate(points)))
    }
    return sorted(rank, key=lambda series: rank[series])


def _point_name(cell: Cell) -> str:
    """The cell's name without its seed."""
    if cell.family == "pretrained":
        return cell.name
    return cell.model if cell.budget is None else f"{cell.model}-{cell.budget}"


def _series(cell: Cell, name: str, name_variant: bool) -> str:
    if cell.block_length is None:
        return name
    variant = f" {cell.variant}" if name_variant else ""
    return f"{name} L={cell.block_length}{variant}"
