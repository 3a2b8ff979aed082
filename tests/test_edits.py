"""Edits of a finished study, and what `dvc repro` does then: no less than what they change, and no more."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import repository, study
from tests.faults.stages import BLOCK, VANILLA, hashes, repro
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
