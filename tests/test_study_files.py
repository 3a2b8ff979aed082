"""The files of studies/: complete, well-formed, and in two settings each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.base import paths
from pipeline.commands.plan import plan
from pipeline.results.records import write_result
from pipeline.study import cells, load_study
from tests.conftest import ROOT

FILES = {path.stem: path for path in sorted((ROOT / "studies").glob("*.yaml"))}
# Studies of one machine, in one setting.
HARDWARE = {"h100"} | {
    f"{of}_h100"
    for of in (
        "budgets",
        "equal_loss",
        "forms_85m",
        "passes",
        "passes_twice",
        "sizes",
        "windows",
        "windows_8192",
        "windows_16384",
    )
}
LARGE = [name for name in FILES if name.endswith(("_paper", "_h100")) and name not in HARDWARE]
FOREIGN = {"uptrain_smollm2"}  # needs a model that is not the study's own
GENERATED = {"recall"}  # of generated text, in one setting
WITHIN = {"memory"}  # its large setting is within that of changes
SMALL = [name for name in FILES if name not in {*LARGE, *HARDWARE, *FOREIGN}]
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


def test_each_experiment_has_a_small_setting_and_a_large_one() -> None:
    """The paper's scale, or one GPU's."""
    large = {name.removesuffix("_paper").removesuffix("_h100") for name in LARGE}
    assert sorted(large | GENERATED | WITHIN) == sorted([*SMALL, *FOREIGN])
    assert not large & (GENERATED | WITHIN)


@pytest.mark.parametrize("name", SMALL)
def test_a_small_setting_is_minutes_of_two_cores_and_fetches_nothing(name: str) -> None:
    study = load_study(FILES[name])
    assert study.corpus.source == ("recall" if name in GENERATED else "sotu")
    assert study.tokenize.tokenizer is None
    assert set(study.evaluate.tasks) <= {"cloze", "continuation"}
    assert not study.pretrained
    assert sum(entry.training_flops for entry in plan(study)) < MINUTES


def test_the_recall_study_trains_on_what_it_asks_and_a_document_fills_a_context() -> None:
    study = load_study(FILES["recall"])
    assert study.corpus.recall is not None
    assert study.corpus.recall.symbols == study.evaluate.recall_symbols
    assert study.corpus.recall.lines is not None
    assert 3 * study.corpus.recall.lines + 2 == study.pretrain.context_length  # blank line and end of text
    assert all(study.pretrain.context_length % length == 0 for length in study.grid.block.block_length)


def test_isoflop_cells_are_of_one_budget() -> None:
    budgets = [entry.training_flops for entry in plan(load_study(FILES["isoflop"]))]
    assert max(budgets) / min(budgets) == pytest.approx(1, abs=0.01)
    published = [entry.training_flops for entry in plan(load_study(FILES["isoflop_paper"]))]
    assert max(published) / min(published) == pytest.approx(1, abs=0.2)


def test_the_documentation_lists_every_study() -> None:
    text = (Path(ROOT) / "docs/studies.md").read_text(encoding="utf-8")
    assert [name for name in [*SMALL, *HARDWARE, *FOREIGN] if f"`{name}`" not in text] == []


def shortened(name: str) -> dict[str, Any]:
    """The study with eight steps per cell, on a few documents."""
    values = yaml.safe_load(FILES[name].read_text(encoding="utf-8"))
    pretrain = values["pretrain"]
    pretrain["warmup_steps"], pretrain["validation_tokens"] = 2, 2048
    pretrain["tokens"] = 8 * pretrain["batch_size"] * pretrain["context_length"]
    for size in values["sizes"].values():
        size.pop("pretrain", None)
    values["corpus"] |= {"max_documents": 60, "test_fraction": 0.05}
    values["evaluate"] |= {"max_documents": 2, "limit": 4}
    values["benchmark"] |= {"batch_sizes": [2], "repeats": 1}
    for setting in values["benchmark"]["settings"].values():
        setting |= {"prompt": 24, "new_tokens": 8}
    return values


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_cell_of_a_small_setting_trains_and_reports(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.analysis.page.report import write_report
    from pipeline.benchmark.cell import benchmark
    from pipeline.data import write_corpus, write_tokens
    from pipeline.evaluation import evaluate
    from pipeline.training import pretrain

    monkeypatch.chdir(tmp_path)
    paths.PARAMS.write_text(yaml.safe_dump(shortened(name)), encoding="utf-8")
    study = load_study()
    write_corpus(study.corpus, paths.CORPUS)
    write_tokens(study.tokenize, paths.CORPUS, paths.TOKENS)
    for cell in cells(study):
        trained = pretrain(study, cell)
        assert trained is not None
        write_result(paths.result("pretrain", cell.name), trained)
        write_result(paths.result("evaluate", cell.name), evaluate(study, cell))
        write_result(paths.result("benchmark", cell.name), benchmark(study, cell))
    write_report(study, paths.REPORT)
    lines = (paths.REPORT / "results.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(cells(study))
