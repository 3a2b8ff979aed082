"""The plan tells what a study will cost before anything runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.commands.plan import plan
from pipeline.study import cells, load_study

PAPER = {  # the paper's table 3 and appendix, in millions: non-embedding and total parameters
    "vanilla-19m-0": (18.9, 70.4),
    "vanilla-85m-0": (85.1, 162.3),
    "vanilla-302m-0": (302.3, 405.3),
    "block-5m-4-main-0": (4.9, 33.8),
    "block-19m-4-main-0": (19.4, 77.4),
    "block-85m-4-main-0": (86.2, 173.1),
    "block-302m-4-main-0": (304.4, 420.3),
    "block-805m-4-main-0": (814.1, 1046.0),
    "block-1200m-4-main-0": (1217.0, 1448.8),
}


def test_the_paper_study_has_the_parameters_of_the_published_models(root: Path) -> None:
    counts = {entry.cell: entry for entry in plan(load_study(root / "studies/main_results_paper.yaml"))}
    assert set(PAPER) <= set(counts)
    for cell, (non_embedding, total) in PAPER.items():
        assert round(counts[cell].non_embedding_parameters / 1e6, 1) == non_embedding
        assert counts[cell].total_parameters / 1e6 == pytest.approx(total, rel=2e-3)


def test_cells_made_from_a_model_can_be_planned_before_it_is_imported(
    root: Path, params_text: str, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(params_text, encoding="utf-8")
    study = load_study(
        tmp_path / "params.yaml",
        [
            "pretrained={elsewhere: {path: x, size: s}}",
            "variants.start={init: {method: partition}, embedder: {kind: projection}}",
            "grid.uptrained={source: [elsewhere], block_length: [4], variant: [start]}",
        ],
    )
    with pytest.raises(UserError, match=r"pretrained\.elsewhere: run `dvc repro pretrained@elsewhere` first"):
        plan(study)
    trained = [cell for cell in cells(study) if cell.family != "pretrained"]
    assert "block-elsewhere-4-start-0" in [entry.cell for entry in plan(study, trained)]


def test_plan_command_prints_every_cell_as_json(root: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "pipeline", "plan", "--json"]
    printed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    entries = json.loads(printed.stdout)
    assert len(entries) == 8
    for entry in entries:
        assert sum(entry["parameters"].values()) == entry["total_parameters"]
        assert entry["embedding_parameters"] + entry["non_embedding_parameters"] == entry["total_parameters"]
        assert entry["done"] == []
        assert entry["tokens"] >= entry["steps"] > 0


def test_a_reader_that_is_gone_meets_no_traceback(root: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pipeline", "plan"]
    ended = subprocess.run(command, cwd=root, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_mistake_is_one_line_and_status_1(root: Path, tmp_path: Path) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8").replace("seed: [0]", "seeds: [0]")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "pipeline", "plan"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == "error: params.yaml: grid.seeds: unknown key; did you mean 'seed'?\n"
