"""Losses of a tiny run of every kind of model, as they were when they were written down: a change must not move them.

`python -m tests.test_golden` writes tests/assets/golden_losses.json anew, for a change that is meant to move them.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
import yaml

from pipeline.base.files import read_json, write_json
from pipeline.base.paths import CORPUS, TOKENS
from pipeline.data import write_corpus, write_tokens
from pipeline.evaluation import evaluate
from pipeline.study import cells, find_cell, load_study
from pipeline.training import pretrain
from pipeline.training.curve import Row
from tests.training.conftest import PARAMS, write_texts

GOLDEN = Path(__file__).parent / "assets/golden_losses.json"
VARIANTS = """
base: {}
unpadded: {padding: false}
projection_summation: {embedder: {kind: projection, width: 24}, token_decoder: {kind: summation}}
cls_cross_attention: {embedder: {kind: cls, width: 16, heads: 2, layers: 1}, token_decoder: {kind: cross_attention}}
roberta_grouped: {embedder: {kind: roberta, width: 16, heads: 2, layers: 1}, block_decoder: {heads: 2, kv_heads: 1}}
uptrained: {embedder: {kind: projection}, init: {method: partition}}
"""
GRID = """
vanilla: {size: [s, windowed]}
block:
  size: [s]
  block_length: [4]
  variant: [base, unpadded, projection_summation, cls_cross_attention, roberta_grouped]
uptrained: {source: [vanilla-s-0], block_length: [2], variant: [uptrained]}
"""
NAMES = [
    "vanilla-s-0",
    "vanilla-windowed-0",
    *(f"block-s-4-{name}-0" for name in list(yaml.safe_load(VARIANTS))[:-1]),
    "block-vanilla-s-0-2-uptrained-0",
]


def golden_study() -> str:
    """The tiny study with every kind of embedder and token decoder, grouped queries, a window, and uptraining."""
    values = yaml.safe_load(PARAMS)
    values["variants"], values["grid"] = yaml.safe_load(VARIANTS), yaml.safe_load(GRID)
    values["sizes"]["windowed"] = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "window": 8}
    values["pretrain"]["precision"] = values["evaluate"]["precision"] = "fp32"
    values["evaluate"] |= {"long_context": [1, 2]}
    return yaml.safe_dump(values)


def losses_of(name: str) -> dict[str, list[float] | float]:
    """Training losses of every second step, validation losses, and the evaluation's."""
    study, rows = load_study(), list[Row]()
    trained = pretrain(study, find_cell(study, name), rows.append)
    assert trained is not None
    scored = evaluate(study, find_cell(study, name))
    return {
        "train": [row.train_loss for row in rows],
        "gradient_norm": [row.gradient_norm for row in rows],
        "validation": [row.validation_loss for row in rows if row.validation_loss is not None],
        "test": scored.loss,
        "by_block_position": scored.loss_by_block_position,
        "by_context": [loss for curve in scored.loss_by_context for loss in curve.losses],
    }


def write_golden_data() -> None:
    """The study and its tokens, in the working directory."""
    write_texts(Path("text"))
    Path("params.yaml").write_text(golden_study(), encoding="utf-8")
    study = load_study()
    write_corpus(study.corpus, CORPUS)
    write_tokens(study.tokenize, CORPUS, TOKENS)


@pytest.fixture(scope="module")
def golden_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_golden_data()
    return folder


def test_every_cell_has_golden_losses(golden_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(golden_folder)
    assert [cell.name for cell in cells(load_study())] == NAMES == list(read_json(GOLDEN))


@pytest.mark.parametrize("name", NAMES)
def test_the_losses_are_where_they_were(golden_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(golden_folder)
    if "vanilla-s-0-" in name:  # starts from its weights, which another process may not have trained
        losses_of("vanilla-s-0")
    found, golden = losses_of(name), read_json(GOLDEN)[name]
    assert found.keys() == golden.keys()
    for key, values in golden.items():
        assert found[key] == pytest.approx(values, rel=2e-4), key


def main() -> None:
    """Write the golden losses anew."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_golden_data()
        golden = {name: losses_of(name) for name in NAMES}
    write_json(GOLDEN, json.loads(json.dumps(golden)))


if __name__ == "__main__":
    main()
