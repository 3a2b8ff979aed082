"""`python -m tests.finish_study`: what `dvc repro` does to the study of the working directory, in one process."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.analysis import write_report
from pipeline.benchmark.cell import benchmark
from pipeline.data import describe_inputs, write_corpus, write_tokens
from pipeline.evaluation import evaluate
from pipeline.files import write_json
from pipeline.interop.pretrained import bring_in
from pipeline.results import write_result
from pipeline.study import cells, load_study
from pipeline.training import pretrain


def main() -> None:
    """Every stage's work for every cell, without MLflow."""
    study = load_study()
    write_json(Path("data/inputs.json"), describe_inputs(study))
    write_json(Path("data/search.json"), None)
    write_corpus(study.corpus, paths.CORPUS)
    write_tokens(study.tokenize, paths.CORPUS, paths.TOKENS, processes=1)
    for cell in cells(study):
        elsewhere = study.pretrained.get(cell.name)
        trained = bring_in(cell.name, elsewhere) if elsewhere else pretrain(study, cell)
        assert trained is not None
        write_result(paths.result("pretrain", cell.name), trained)
        write_result(paths.result("evaluate", cell.name), evaluate(study, cell))
        write_result(paths.result("benchmark", cell.name), benchmark(study, cell))
    write_report(study, paths.REPORT)


if __name__ == "__main__":
    main()
