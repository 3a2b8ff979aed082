"""A small and a large study with results that nobody trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic import HOSTILE, study_file, write_results

from pipeline.analysis.page.report import write_report
from pipeline.analysis.rows.load import load_rows
from pipeline.analysis.rows.points import Row
from pipeline.base.paths import result
from pipeline.results.records import EvaluateResult, read_result, write_result
from pipeline.study import Study, cells
from tests.analysis.pictures import without_png


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Two sizes of vanilla and of block lengths 2, 4 and 8, with every result written."""
    monkeypatch.chdir(tmp_path)
    made = study_file(tmp_path, {"s": (4, 128), "m": (6, 192)}, [2, 4, 8])
    write_results(made)
    return made


@pytest.fixture
def rows(study: Study) -> list[Row]:
    return load_rows(study)[0]


@pytest.fixture
def no_png() -> Iterator[None]:
    with without_png():
        yield


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report folder of a study with every family, whose results hold markup."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = study_file(folder, {"s": (4, 64), "m": (4, 128)}, [2, 4], others=True)
        write_results(study)
        for cell in cells(study):
            path = result("evaluate", cell.name)
            record = read_result(path, EvaluateResult, "evaluate")
            tasks = [dataclasses.replace(task, task=HOSTILE) for task in record.tasks]
            environment = dataclasses.replace(record.environment, device=HOSTILE)
            write_result(path, dataclasses.replace(record, tasks=tasks, environment=environment))
        write_report(study, folder / "report")
    return folder / "report"
