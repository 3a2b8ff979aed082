"""`pipeline.load`: what lies in a study's folder as frames."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import study_file, write_results

import pipeline
from pipeline.analysis.page import tables
from pipeline.analysis.rows.load import load_rows
from pipeline.base.errors import UserError
from pipeline.base.paths import checkpoint, result
from pipeline.results.probes import details
from pipeline.study import Study, cells


def test_frames_hold_what_the_files_hold(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = load_rows(study)[0]
    (head, *_) = csv.reader(tables.results_csv(rows).splitlines())
    with (checkpoint("block-s-4-base-0") / "curve.csv").open() as file:
        curve = list(csv.DictReader(file))
    monkeypatch.chdir("/")
    frames = pipeline.load(tmp_path)
    assert Path.cwd() == Path("/")
    assert frames.study == "synthetic"
    assert list(frames.results.columns) == head
    assert frames.results.set_index("cell").loss.to_dict() == {row.name: row.evaluate.loss for row in rows}
    block = frames.results.set_index("cell").loc["block-s-4-base-0"]
    assert (block.block_length, block.seed, block.variant) == (4, 0, "base")
    mine = frames.curves[frames.curves.cell == "block-s-4-base-0"]
    assert mine.tokens.tolist() == [int(line["tokens"]) for line in curve]
    assert mine.train_loss.tolist() == [float(line["train_loss"]) for line in curve]
    assert len(frames.probes) == sum(len(details(row.evaluate)) for row in rows)
    assert frames.cells.cell.tolist() == [row.name for row in rows]
    assert set(frames.cells["pretrain.tokens"]) == {3_000_000}
    assert frames.along.empty


def test_a_cell_that_lacks_a_result_is_in_the_cells_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called: NA is a name."""
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, {"NA": (2, 64), "s": (2, 64)}, [4])
    write_results(study)
    result("evaluate", "vanilla-s-0").unlink()
    frames = pipeline.load()
    lacking = frames.cells[frames.cells.lacks.notna()]
    assert lacking.cell.tolist() == ["vanilla-s-0"]
    assert lacking.lacks.tolist() == ["evaluate"]
    assert lacking.reason.str.contains("no such result").all()
    assert frames.results.cell.tolist() == [cell.name for cell in cells(study) if cell.name != "vanilla-s-0"]
    assert frames.results["size"].tolist() == ["NA", "NA", "s"]


def test_a_folder_without_a_study_or_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}: no params.yaml there"):
        pipeline.load(tmp_path)
    study_file(tmp_path, {"s": (2, 64)}, [4])
    with pytest.raises(UserError, match=rf"^{tmp_path}: study synthetic: no cell is trained and evaluated"):
        pipeline.load(tmp_path)


def test_the_package_is_light_until_something_is_loaded(root: Path) -> None:
    code = "import sys, pipeline; pipeline.load; print(*{'pandas', 'numpy', 'torch', 'omegaconf'} & sys.modules.keys())"
    environment = os.environ | {"PYTHONPATH": str(root)}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
