"""`python -m tests.finish_study`: leaves a study as `dvc repro` does, but for its numbers, which nobody measured."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from pipeline.analysis.page.report import write_report
from pipeline.base import paths
from pipeline.base.files import write_json
from pipeline.data import describe_inputs, model_vocabulary, write_corpus, write_tokens
from pipeline.interop.pretrained import bring_in
from pipeline.models import build, checkpoint, initialise
from pipeline.models.checkpoint import load
from pipeline.results.environment import provenance
from pipeline.results.records import STAGES, identity_of, read_result, write_result
from pipeline.study import Cell, Study, cells, load_study
from pipeline.study.causes import write_causes
from pipeline.training.job import Job
from tests.analysis.pictures import without_png
from tests.analysis.synthetic import write_results


def finish() -> None:
    """Data, checkpoints of untrained models, results and report of the study in the working directory."""
    study = load_study()
    write_json(Path("data/inputs.json"), describe_inputs(study))
    write_json(Path("data/search.json"), None)
    write_causes(study, model_vocabulary(study.tokenize))
    write_corpus(study.corpus, paths.CORPUS)
    write_tokens(study.tokenize, paths.CORPUS, paths.TOKENS, processes=1)
    write_results(study)
    for cell in cells(study):
        _write_checkpoint(study, cell)
        folder = paths.checkpoint(cell.name)
        made = {"cell": identity_of(load(folder)[1], folder), "provenance": provenance(folder)}
        for stage in cell.stages:
            path = paths.result(stage, cell.name)
            write_result(path, dataclasses.replace(read_result(path, STAGES[stage], stage), **made))
    with without_png():
        write_report(study, paths.REPORT)


def _write_checkpoint(study: Study, cell: Cell) -> None:
    if cell.family == "pretrained":
        bring_in(cell.name, study.pretrained[cell.name])
        return
    job = Job.of(study, cell)
    model = build(job.config)
    initialise(model, 0)
    shutil.copy(paths.TOKENS / "tokenizer.json", job.folder)
    checkpoint.save(job.folder, model, job.record)


if __name__ == "__main__":
    finish()
