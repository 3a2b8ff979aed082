"""Stage evaluate: a cell's loss, zero-shot scores and samples, into results/evaluate."""

from pipeline import tracking
from pipeline.base import paths
from pipeline.base.command import cell_argument, command
from pipeline.evaluation import evaluate
from pipeline.results.failures import failure_noted
from pipeline.results.records import write_result
from pipeline.study import find_cell, load_study


@command
def main() -> None:
    name = cell_argument("evaluate", "Evaluate a trained cell on the held-out documents and zero-shot tasks.")
    study = load_study()
    cell = find_cell(study, name)
    with failure_noted("evaluate", name):
        write_result(paths.result("evaluate", name), evaluate(study, cell))
    tracking.catch_up(study.name, name)


if __name__ == "__main__":
    main()
