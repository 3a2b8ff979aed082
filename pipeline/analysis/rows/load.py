"""The rows that the results give: every trained and evaluated cell of the study, and what cells lack."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.analysis.rows.families import attention
from pipeline.analysis.rows.points import Row
from pipeline.base.errors import UserError
from pipeline.base.paths import PARAMS, checkpoint, result
from pipeline.results.curve import read_curve
from pipeline.results.failures import failure
from pipeline.results.records import AnyResult, BenchmarkResult, EvaluateResult, PretrainResult, read_result
from pipeline.study import Cell, Study, cells, load_study
from pipeline.study.pretraining import pretraining
from pipeline.study.schema import Pretrain, Tuning
from pipeline.study.tune_space import tuning_of

Record = TypeVar("Record", bound=AnyResult)
SAME = ("documents_hash", "tokenizer_hash", "documents", "stride", "target_tokens")
"""What makes the losses of two records comparable."""

FEW = 3
"""Cells without a result of the same stage that are told one by one."""
MANY = {
    "pretrain": "are not trained; `dvc repro` trains them",
    "benchmark": "are not timed, so they have no speed; `dvc repro` times them",
}


@dataclass(frozen=True)
class Missing:
    """A cell, the stage whose result it lacks, and why. It takes no part, or where it is not timed none in speeds.

    ``absent``: the stage has left neither a result nor a failure.
    """

    cell: str
    stage: str
    reason: str
    absent: bool = False

    def __str__(self) -> str:
        return f"{self.cell}, stage {self.stage}: {self.reason}"


def told(missing: Sequence[Missing]) -> list[str]:
    """A line per cell, but one for all that are not trained, or not timed, where these are more than :data:`FEW`."""
    absent = {stage: [each.cell for each in missing if each.absent and each.stage == stage] for stage in MANY}
    many = {stage: names for stage, names in absent.items() if len(names) > FEW}
    others = [str(lacking) for lacking in missing if not (lacking.absent and lacking.stage in many)]
    return [*others, *(f"{len(names)} cells {MANY[stage]}: {', '.join(names)}" for stage, names in many.items())]


class _Lacks(Exception):
    """Raised where a cell's record of a stage is absent, unreadable or foreign."""

    def __init__(self, stage: str, reason: str, absent: bool = False) -> None:
        super().__init__(reason)
        self.stage = stage
        self.absent = absent

    def of(self, cell: Cell) -> Missing:
        return Missing(cell.name, self.stage, str(self), self.absent)


def read_study(folder: Path) -> tuple[Study, list[Row], list[Missing]]:
    """The study of a folder, with its :func:`load_rows`. Raises :class:`UserError`.

    Paths of a study are relative, so that the process is in the folder while it reads.
    """
    if not (folder / PARAMS).is_file():
        raise UserError(f"{folder}: no {PARAMS} there; name a folder that a study was run in")
    try:
        with contextlib.chdir(folder):
            study = load_study()
            return study, *load_rows(study)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def load_rows(study: Study) -> tuple[list[Row], list[Missing]]:
    """The rows of the cells whose records are there and compare, and what cells lack, both in the grid's order.

    A record is missing where it is absent, cannot be read, is about another cell or other weights than the cell's, or
    was scored on other documents or tokens than most cells were. A cell without a benchmark is a row nevertheless: with
    the speeds of another seed of its model, or with none, which is a lack. Raises :class:`UserError` where no row is
    left.
    """
    rows: list[Row] = []
    missing: list[Missing] = []
    for cell in cells(study):
        try:
            rows.append(_row(study, cell))
        except _Lacks as lack:
            missing.append(lack.of(cell))
    rows, foreign = _comparable(rows)
    if not rows:
        first = f" ({missing[0]})" if missing else ""
        raise UserError(f"study {study.name}: no cell is trained and evaluated; run `dvc repro`{first}")
    order = [cell.name for cell in cells(study)]
    return rows, sorted([*missing, *foreign, *_untimed(rows)], key=lambda lacking: order.index(lacking.cell))


def _row(study: Study, cell: Cell) -> Row:
    pretrain = _read(cell, "pretrain", PretrainResult)
    evaluate = _of_weights(pretrain, cell, "evaluate", EvaluateResult)
    benchmark = _benchmark(study, pretrain, cell) if "benchmark" in cell.stages else None
    counts = (len(evaluate.nats_by_document), len(evaluate.targets_by_document))
    if counts not in ((0, 0), (evaluate.documents, evaluate.documents)):
        path = result("evaluate", cell.name)
        raise _Lacks("evaluate", f"{path}: {counts[0]} losses of {evaluate.documents} documents; {_again('evaluate')}")
    curve, remark = _curve(cell)
    shared = attention(study, cell)
    measured = benchmark or BenchmarkResult(evaluate.cell, evaluate.environment, settings={}, repeats=0)
    return Row(cell, pretrain, evaluate, measured, shared, curve, remark, *_recipe(study, cell))


def _recipe(study: Study, cell: Cell) -> tuple[Pretrain | None, Tuning | None]:
    """What the cell is trained with, and how that was found; neither for a model trained elsewhere."""
    if cell.family == "pretrained":
        return None, None
    return pretraining(study, cell), tuning_of(study, cell)


def _benchmark(study: Study, pretrain: PretrainResult, cell: Cell) -> BenchmarkResult | None:
    """The cell's own, and where it has none that of the lowest seed with one: a model's speed depends on no seed."""
    if result("benchmark", cell.name).exists():
        return _of_weights(pretrain, cell, "benchmark", BenchmarkResult)
    for seed in sorted(study.grid.seed) if cell.family != "pretrained" else []:
        other = dataclasses.replace(cell, seed=seed)
        with contextlib.suppress(_Lacks):
            return _of_weights(_read(other, "pretrain", PretrainResult), other, "benchmark", BenchmarkResult)
    return None


def _untimed(rows: Sequence[Row]) -> Iterator[Missing]:
    """The benchmarks that failed, and those that are absent where no other seed's stands in."""
    for row in rows:
        if "benchmark" in row.cell.stages and (row.borrows or not row.timed):
            try:
                _read(row.cell, "benchmark", BenchmarkResult)
            except _Lacks as lack:
                if not (lack.absent and row.borrows):
                    yield lack.of(row.cell)


def _of_weights(pretrain: PretrainResult, cell: Cell, stage: str, kind: type[Record]) -> Record:
    """The cell's record, which must be about the weights that its training left."""
    record, own = _read(cell, stage, kind), pretrain.cell.fingerprint
    if record.cell.fingerprint != own:
        measured = f"measured on weights {record.cell.fingerprint!r}, but the cell's are {own!r}"
        raise _Lacks(stage, f"{result(stage, cell.name)}: {measured}; {_again(stage)}")
    return record


def _curve(cell: Cell) -> tuple[dict[str, list[float]], str]:
    """The training curve, and why it is lost if it is: a report can do without."""
    try:
        return read_curve(checkpoint(cell.name) / "curve.csv"), ""
    except UserError as error:
        return {}, str(error)


def _read(cell: Cell, stage: str, kind: type[Record]) -> Record:
    path = result(stage, cell.name)
    failed = None if path.exists() else failure(stage, cell.name)
    if failed is not None:
        raise _Lacks(stage, f"it failed: {failed}")
    try:
        record: Record = read_result(path, kind, stage)
    except UserError as error:
        raise _Lacks(stage, str(error), absent=not path.exists()) from None
    if record.cell.name != cell.name:
        raise _Lacks(stage, f"{path}: a result of cell {record.cell.name!r}; {_again(stage)}")
    return record


def _comparable(rows: list[Row]) -> tuple[list[Row], list[Missing]]:
    """The rows that were scored on what most of them were, and the others."""
    scored = [tuple(getattr(row.evaluate, key) for key in SAME) for row in rows]
    usual = Counter(scored).most_common(1)[0][0] if rows else ()
    kept = [row for row, values in zip(rows, scored, strict=True) if values == usual]
    foreign = []
    for row, values in zip(rows, scored, strict=True):
        if values != usual:
            key, own, expected = next(
                triple for triple in zip(SAME, values, usual, strict=True) if triple[1] != triple[2]
            )
            reason = (
                f"{result('evaluate', row.name)}: {key} is {own!r}, but {expected!r} for {kept[0].name}; losses "
                f"compare on the same tokens only, so {_again('evaluate')}"
            )
            foreign.append(Missing(row.name, "evaluate", reason))
    return kept, foreign


def _again(stage: str) -> str:
    return f"run `dvc repro` (stage {stage}) again"
