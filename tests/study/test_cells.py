"""Cells: architectures from sizes and variants, and what makes two of them the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.base.errors import UserError
from pipeline.base.files import read_json
from pipeline.base.made_of import made_of
from pipeline.models.config import BlockConfig, VanillaConfig, from_dict, to_dict
from pipeline.study import Study, cells, find_cell, load_study, model_config, pretraining
from pipeline.study.causes import fingerprint
from pipeline.study.schema import Pretrain
from tests.models.variants import VARIANTS

GOLDEN = Path(__file__).parents[1] / "assets/golden_configs.json"


@pytest.fixture
def study(root: Path) -> Study:
    return load_study(root / "tests/params.yaml")


def test_both_families_spend_the_same_layers_and_width(study: Study) -> None:
    vanilla = model_config(study, find_cell(study, "vanilla-m-0"), 4096)
    block = model_config(study, find_cell(study, "block-m-4-base-0"), 4096)
    assert isinstance(vanilla, VanillaConfig)
    assert isinstance(block, BlockConfig)
    assert vanilla.stack.layers == block.block_decoder.layers + block.token_decoder.stack.layers == 6
    assert vanilla.stack.width == block.block_decoder.width == block.token_decoder.stack.width == 192
    assert block.embedder.width == 192 // 4


def test_every_architecture_survives_json(study: Study) -> None:
    for cell in cells(study):
        config = model_config(study, cell, 4096)
        assert from_dict(to_dict(config)) == config


def test_an_unknown_cell_names_those_there_are(study: Study) -> None:
    with pytest.raises(UserError, match="'vanilla-xl-0' is not in the study's grid; its cells are vanilla-s-0"):
        find_cell(study, "vanilla-xl-0")


@pytest.mark.parametrize("name", read_json(GOLDEN))
def test_fingerprints_are_as_they_were(name: str) -> None:
    keys = {"model": to_dict(VARIANTS[name]), "pretrain": made_of(Pretrain()), "padding": False, "seed": 0}
    assert fingerprint(keys, "corpus", None) == read_json(GOLDEN)[name]["fingerprint"]


def test_a_size_may_train_otherwise_and_split_otherwise(tmp_path: Path, params_text: str) -> None:
    path = tmp_path / "params.yaml"
    own = "s: {layers: 4, width: 128, pretrain: {batch_size: 3}, token_decoder: {width: 64, heads: 2}}"
    path.write_text(params_text.replace("s: {layers: 4, width: 128}", own), encoding="utf-8")
    study = load_study(path)
    assert pretraining(study, find_cell(study, "vanilla-s-0")).batch_size == 3
    assert pretraining(study, find_cell(study, "vanilla-m-0")).batch_size == study.pretrain.batch_size
    block = model_config(study, find_cell(study, "block-s-4-base-0"), 4096)
    assert isinstance(block, BlockConfig)
    assert (block.block_decoder.width, block.token_decoder.stack.width, block.token_decoder.stack.heads) == (128, 64, 2)
