"""A study's results as pandas frames, for notebooks: the columns of report/'s CSV files, read from the results."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path

import pandas

from pipeline.analysis.page import tables
from pipeline.analysis.rows.load import Missing, read_study
from pipeline.analysis.rows.points import Row
from pipeline.study import Cell, Study, cells, pretraining
from pipeline.study.pretraining import flat

COUNTS = ("block_length", "seed", "tokens", "step", "budget")


@dataclass(frozen=True)
class Frames:
    """A study's frames; every one has the column ``cell``.

    ``cells``: a row per cell of the study, finished or not: its place in the grid, its training keys, and the stage
    that ``lacks`` a result with the ``reason``. ``results``: a row per cell that is trained and evaluated, columns of
    report/results.csv. ``curves``: a row per noted step of training, the columns of curve.csv. ``probes``: a row per
    place that a probe tried. ``along``: a row per score of weights on the way. Losses in nats, times in seconds, memory
    in bytes.
    """

    study: str
    cells: pandas.DataFrame
    results: pandas.DataFrame
    curves: pandas.DataFrame
    probes: pandas.DataFrame
    along: pandas.DataFrame


def load(folder: Path | str = ".") -> Frames:
    """The frames of the study in ``folder``, a checkout whose results are in it.

    Raises :class:`UserError` where there is no study, or no cell of it is trained and evaluated.
    """
    study, rows, missing = read_study(Path(folder))
    return Frames(
        study=study.name,
        cells=_cells(study, missing),
        results=_frame(tables.results_csv(rows)),
        curves=_curves(rows),
        probes=_frame(tables.probes_csv(rows)),
        along=_frame(tables.along_csv(rows)),
    )


def _cells(study: Study, missing: list[Missing]) -> pandas.DataFrame:
    lacking = {entry.cell: entry for entry in missing}
    return pandas.DataFrame([_described(study, cell, lacking.get(cell.name)) for cell in cells(study)]).pipe(_counted)


def _described(study: Study, cell: Cell, lacking: Missing | None) -> dict[str, object]:
    keys = {} if cell.family == "pretrained" else flat(pretraining(study, cell))
    keys.pop("budgets", None)  # the column ``budget`` has the cell's
    place = dataclasses.asdict(cell)
    lacks = {"lacks": lacking and lacking.stage, "reason": lacking and lacking.reason}
    return {"cell": cell.name, **place, **lacks, **{f"pretrain.{key}": value for key, value in keys.items()}}


def _curves(rows: list[Row]) -> pandas.DataFrame:
    parts = [pandas.DataFrame({"cell": row.name, **row.curve}) for row in rows if row.curve]
    return _counted(pandas.concat(parts, ignore_index=True)) if parts else pandas.DataFrame({"cell": []})


def _frame(text: str) -> pandas.DataFrame:
    """A CSV's frame; only an empty field is missing, whatever a cell is called."""
    return _counted(pandas.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""]))


def _counted(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Whole numbers stay such beside cells that have none."""
    return frame.astype({name: "Int64" for name in COUNTS if name in frame})
