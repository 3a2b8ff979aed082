"""Edits of a finished study, and what `dvc repro` does then: no less than what they change, and no more."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.base.files import read_json
from pipeline.study.trunks import trunks
from tests.faults.conftest import repository, study
from tests.faults.stages import BLOCK, VANILLA, hashes, repro, run
from tests.training.conftest import tiny_root

__all__ = ["repository", "study", "tiny_root"]
RUNS = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)
BETAS = ("pretrain:\n", "pretrain:\n  betas: [0.9, 0.99]\n")


@pytest.fixture
def finished(repository: Path) -> Iterator[Path]:
    repro(repository)
    yield repository
    shutil.rmtree(repository / ".dvc/cache", ignore_errors=True)


def ran(repository: Path) -> set[str]:
    """The stages that `dvc repro` runs, but for the check, which it always runs."""
    return set(RUNS.findall(repro(repository))) - {"check"}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def trained(*cells: str) -> set[str]:
    return {f"pretrain-{cell.partition('-')[0]}@{cell}" for cell in cells}


def after(*cells: str) -> set[str]:
    """The stages that follow from other weights of these cells."""
    family = {cell: cell.partition("-")[0] for cell in cells}
    return {f"{stage}-{family[cell]}@{cell}" for stage in ("evaluate", "benchmark") for cell in cells} | {"report"}


@pytest.mark.slow
def test_edits_of_a_finished_study(finished: Path) -> None:
    weights = hashes(Path("checkpoints"))
    assert ran(finished) == set()

    for path in finished.glob("pipeline/**/*.py"):  # docstrings and comments of every module
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"""', '"""Edited: ', 1) + "\n# A comment.\n", encoding="utf-8")
    assert ran(finished) == set()

    params = finished / "params.yaml"
    edit(params, *("pretrain:\n", "pretrain:\n  gradient_clip: 1.0\n"))  # a key with its default
    edit(params, "evaluate: {", "evaluate: {few_shot: 0, ")
    assert ran(finished) == set()

    edit(params, "log_every: 2", "log_every: 5")  # changes no result
    assert ran(finished) == set()

    edit(params, *BETAS)
    assert trained(VANILLA, BLOCK) <= ran(finished)
    assert hashes(Path("checkpoints")) != weights
    edit(params, BETAS[1], BETAS[0])
    assert ran(finished) >= trained(VANILLA, BLOCK)
    assert hashes(Path("checkpoints")) == weights

    source = next(path for path in finished.glob("pipeline/**/*.py") if "def split_layers" in path.read_text())
    edit(source, "    return first, layers - first", "    return layers - first, first")  # the same: 1 and 1
    assert ran(finished) == set()
    edit(source, "    return layers - first, first", "    return first, layers - first + 1")
    assert ran(finished) == trained(BLOCK) | after(BLOCK)


@pytest.mark.slow
def test_budgets_from_nothing_to_the_report(repository: Path) -> None:
    params, cells = repository / "params.yaml", [VANILLA, BLOCK]
    edit(params, "budgets: []", "budgets: [2560]\n  schedule: wsd")
    first = ran(repository)
    assert {stage for stage in first if "@" in stage} == trained(*cells) | (after(*cells) - {"report"}) | {
        stage for cell in cells for stage in of_budget(cell, 2560)
    }
    assert ran(repository) == set()
    reported = read_json(repository / "report/report.json")
    assert (reported["cells"], reported["missing"]) == (4, [])
    run("pipeline", "verify", PYTHONPATH=str(repository))

    weights = hashes(Path("checkpoints"))
    edit(params, "budgets: [2560]", "budgets: [3840, 2560]")
    assert ran(repository) == {stage for cell in cells for stage in of_budget(cell, 3840)} | {"report"}
    assert weights.items() <= hashes(Path("checkpoints")).items()
    for trunk in trunks():
        assert trunk.steps == [8, 12, 16]
        kept = trunk.curve(8).read_text()
        assert Path(f"checkpoints/{trunk.cell}-3840/curve.csv").read_text().startswith(kept)  # with its times
    assert ran(repository) == set()
    assert runs_of_cells() == sorted(f"{cell}{budget}" for cell in cells for budget in ("", "-2560", "-3840"))

    edit(params, "budgets: [3840, 2560]", "budgets: []")
    assert ran(repository) == {"report"}
    shutil.rmtree(repository / ".dvc/cache", ignore_errors=True)


def of_budget(cell: str, tokens: int) -> set[str]:
    family = cell.partition("-")[0]
    return {f"{stage}-{family}-budgets@{cell}-{tokens}" for stage in ("pretrain", "evaluate")}


def runs_of_cells() -> list[str]:
    """The names of MLflow's runs of cells."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return sorted(str(run.info.run_name) for run in client.search_runs(experiments, "tags.kind = 'cell'"))
