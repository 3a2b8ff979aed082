"""The rows that the results give: every cell of the study that has them all, and what each other one lacks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Sequence
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
"""Untrained cells that are told one by one."""


@dataclass(frozen=True)
class Missing:
    """A cell that takes no part, the stage whose result it lacks, and why.

    ``untrained``: its training has left neither a result nor a failure.
    """

    cell: str
    stage: str
    reason: str
    untrained: bool = False

    def __str__(self) -> str:
        return f"{self.cell}, stage {self.stage}: {self.reason}"


def told(missing: Sequence[Missing]) -> list[str]:
    """A line per cell, but one for all that are untrained where these are more than :data:`FEW`."""
    untrained = [lacking.cell for lacking in missing if lacking.untrained]
    if len(untrained) <= FEW:
        return list(map(str, missing))
    others = [str(lacking) for lacking in missing if not lacking.untrained]
    return [*others, f"{len(untrained)} cells are not trained; `dvc repro` trains them: {', '.join(untrained)}"]


class _Lacks(Exception):
    """Raised where a cell's record of a stage is absent, unreadable or foreign."""

    def __init__(self, stage: str, reason: str, absent: bool = False) -> None:
        super().__init__(reason)
        self.stage = stage
        self.absent = absent


def read_study(folder: Path) -> tuple[Study, list[Row], list[Missing]]:
    """The study of a folder, the rows of its finished cells, and the others. Raises :class:`UserError`.

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
    """The rows of the cells whose records are there and compare, and the other cells, both in the grid's order.

    A record is missing where it is absent, cannot be read, is about another cell or other weights than the cell's, or
    was scored on other documents or tokens than most cells were. A benchmark that is absent is no lack where the same
    model was timed with another seed. Raises :class:`UserError` where no row is left.
    """
    rows: list[Row] = []
    missing: list[Missing] = []
    for cell in cells(study):
        try:
            rows.append(_row(study, cell))
        except _Lacks as lack:
            missing.append(Missing(cell.name, lack.stage, str(lack), lack.absent and lack.stage == "pretrain"))
    rows, foreign = _comparable(rows)
    if not rows:
        first = f" ({missing[0]})" if missing else ""
        raise UserError(f"study {study.name}: no cell has all of its results; run `dvc repro`{first}")
    order = [cell.name for cell in cells(study)]
    return rows, sorted(missing + foreign, key=lambda lacking: order.index(lacking.cell))


def _row(study: Study, cell: Cell) -> Row:
    pretrain = _read(cell, "pretrain", PretrainResult)
    evaluate = _of_weights(pretrain, cell, "evaluate", EvaluateResult)
    benchmark = _benchmark(study, pretrain, cell) if "benchmark" in cell.stages else _unmeasured(evaluate)
    counts = (len(evaluate.nats_by_document), len(evaluate.targets_by_document))
    if counts not in ((0, 0), (evaluate.documents, evaluate.documents)):
        path = result("evaluate", cell.name)
        raise _Lacks("evaluate", f"{path}: {counts[0]} losses of {evaluate.documents} documents; {_again('evaluate')}")
    curve, remark = _curve(cell)
    shared = attention(study, cell)
    return Row(cell, pretrain, evaluate, benchmark, shared, curve, remark, *_recipe(study, cell))


def _recipe(study: Study, cell: Cell) -> tuple[Pretrain | None, Tuning | None]:
    """What the cell is trained with, and how that was found; neither for a model trained elsewhere."""
    if cell.family == "pretrained":
        return None, None
    return pretraining(study, cell), tuning_of(study, cell)


def _benchmark(study: Study, pretrain: PretrainResult, cell: Cell) -> BenchmarkResult:
    """The cell's own, and where it has none that of the lowest seed with one: a model's speed depends on no seed."""
    if not result("benchmark", cell.name).exists() and failure("benchmark", cell.name) is None:
        for seed in sorted(study.grid.seed) if cell.family != "pretrained" else []:
            other = dataclasses.replace(cell, seed=seed)
            with contextlib.suppress(_Lacks):
                return _of_weights(_read(other, "pretrain", PretrainResult), other, "benchmark", BenchmarkResult)
    return _of_weights(pretrain, cell, "benchmark", BenchmarkResult)


def _of_weights(pretrain: PretrainResult, cell: Cell, stage: str, kind: type[Record]) -> Record:
    """The cell's record, which must be about the weights that its training left."""
    record, own = _read(cell, stage, kind), pretrain.cell.fingerprint
    if record.cell.fingerprint != own:
        measured = f"measured on weights {record.cell.fingerprint!r}, but the cell's are {own!r}"
        raise _Lacks(stage, f"{result(stage, cell.name)}: {measured}; {_again(stage)}")
    return record


def _unmeasured(evaluate: EvaluateResult) -> BenchmarkResult:
    return BenchmarkResult(evaluate.cell, evaluate.environment, settings={}, repeats=0)


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
