"""`python -m pipeline verify`: whether what lies on disk is what the pipeline wrote, every number its source's."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base import paths
from pipeline.base.errors import UserError
from pipeline.base.files import is_file, read_object, sha256
from pipeline.execution.noted import DVC_LOCK, entries_of, md5
from pipeline.results.records import STAGES, read_result
from pipeline.study import Cell, Study, cells
from pipeline.study.arguments import study_of

APART = (paths.SEARCH / "dvc.lock", paths.TUNE / "dvc.lock")


@dataclass(frozen=True)
class Check:
    """One thing that was checked, and what is wrong with it."""

    name: str
    problems: list[str]


def run(arguments: argparse.Namespace) -> None:
    """Print a line per check. Raises :class:`UserError` where one fails."""
    checks = failed = 0
    for check in verify(study_of(arguments)):
        checks += 1
        failed += bool(check.problems)
        print(f"{'FAILED' if check.problems else 'ok'}  {check.name}", flush=True)
        for problem in check.problems:
            print(f"        {problem}", flush=True)
    if failed:
        raise UserError(f"{failed} of {checks} checks failed")


def verify(study: Study) -> Iterator[Check]:
    """Every check of the study's outputs, one after another. Raises :class:`UserError` where DVC has run nothing."""
    yield from _outputs(study)
    for cell in cells(study):
        yield Check(f"cell {cell.name}", _found(_cell_problems, study, cell))
    yield Check(f"{paths.REPORT}: its numbers are the results'", _found(_report_problems, study))


def _found(check: Callable[..., Iterator[str]], *arguments: object) -> list[str]:
    """The problems; a file that cannot be read is one."""
    problems: list[str] = []
    try:
        for problem in check(*arguments):
            problems.append(problem)
    except UserError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{error.filename}: cannot be read ({error.strerror})")
    return problems


def _outputs(study: Study) -> Iterator[Check]:
    """Each stage's outputs against the hashes in dvc.lock. DVC's own are not trusted: it skips files by their date."""
    names = {cell.name for cell in cells(study)}
    stages = entries_of(DVC_LOCK)
    for lock in filter(is_file, APART):  # a search or a tuning has been run, from the repository root
        stages |= entries_of(lock)
    for stage, entry in stages.items():
        item = stage.partition("@")[2]
        if item and item not in names:  # a cell of an earlier study
            continue
        outputs = entry.get("outs", [])
        yield Check(
            f"outputs of {stage}", [problem for output in outputs for problem in _found(_output_problems, output)]
        )


def _output_problems(output: dict[str, Any]) -> Iterator[str]:
    path = Path(output["path"])
    if not path.exists():
        yield f"{path} is missing; `dvc checkout` or `dvc repro` brings it back"
    elif (made := _folder_md5(path) if path.is_dir() else md5(path)) != output["md5"]:
        yield f"{path} has changed since it was made: its MD5 is {made}, not {output['md5']}"


def _folder_md5(folder: Path) -> str:
    """As DVC hashes a folder: the MD5 of a JSON list of its files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = [{"md5": md5(path), "relpath": path.relative_to(folder).as_posix()} for path in files]
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def _cell_problems(study: Study, cell: Cell) -> Iterator[str]:
    """Its results are about the weights that the study asks for, and these are on disk."""
    weights = paths.checkpoint(cell.name) / "model.safetensors"
    present = sha256(weights) if is_file(weights) else None
    if present is None:
        yield f"{weights} is missing"
    for stage in cell.stages:
        yield from _found(_result_problems, stage, cell, weights, present)
    expected = _fingerprint(study, cell, present)
    for path, marked in _fingerprints(cell):
        if expected and marked != expected:
            yield f"{path} is of fingerprint {marked}, but the study's cell has {expected}"


def _result_problems(stage: str, cell: Cell, weights: Path, present: str | None) -> Iterator[str]:
    """Its result of one stage is there, and about the weights on disk, whose SHA-256 is ``present``."""
    path = paths.result(stage, cell.name)
    result = read_result(path, STAGES[stage], stage)
    recorded = result.provenance.weights if result.provenance else ""
    if recorded and present and recorded != present:
        yield f"{path} is about weights {recorded[:16]}, but {weights} has {present[:16]}"


def _fingerprints(cell: Cell) -> Iterator[tuple[Path, str]]:
    """The results that can be read, each with the fingerprint that it is marked with."""
    for stage, kind in STAGES.items():
        path = paths.result(stage, cell.name)
        with suppress(UserError):
            yield path, read_result(path, kind, stage).cell.fingerprint


def _fingerprint(study: Study, cell: Cell, weights: str | None) -> str | None:
    """What the cell's weights must be marked with: from the study's keys and tokens, or an import's own weights."""
    if cell.family == "pretrained":
        return weights and weights[:16]
    from pipeline.training.job import Job

    return Job.of(study, cell).fingerprint


def _report_problems(study: Study) -> Iterator[str]:
    """The tables and metrics, made anew from the results' files, against those in the report."""
    from pipeline.analysis.page.report import summary
    from pipeline.analysis.page.tables import results_csv
    from pipeline.analysis.rows.load import load_rows
    from pipeline.analysis.statistics.findings import find
    from pipeline.results.metrics import all_metrics

    rows, missing = load_rows(study)
    yield from (lacking.reason for lacking in missing)
    table = paths.REPORT / "results.csv"
    yield from _different_lines(table, results_csv(rows))
    metrics = {metric.key: metric for metric in all_metrics(rows)}
    for row in rows:
        path = paths.REPORT / "metrics" / f"{row.name}.json"
        for key, value in read_object(path).items():
            actual = metrics[key].value(row) if key in metrics else None
            if value != actual:
                yield f"{path}: {key} is {value}, but {actual} by the results"
    path, expected = paths.REPORT / "report.json", summary(study, find(rows, missing))
    for key, value in read_object(path).items():
        if json.dumps(value) != json.dumps(expected.get(key)):
            yield f"{path}: {key} is not what the results give"


def _different_lines(path: Path, expected: str) -> Iterator[str]:
    if not is_file(path):
        yield f"{path} is missing; run `dvc repro report`"
        return
    with path.open(encoding="utf-8", newline="") as opened:
        lines, wanted = opened.read().splitlines(), expected.splitlines()
    if len(lines) != len(wanted):
        yield f"{path} has {len(lines)} lines, but {len(wanted)} by the results"
    for number, (line, right) in enumerate(zip(lines, wanted, strict=False), start=1):
        if line != right:
            yield f"{path}, line {number} ({right.partition(',')[0]}) is not what the results give"
