"""Stage evaluate: a cell's loss, zero-shot scores and samples, into results/evaluate."""

from pipeline import tracking
from pipeline.base import paths
from pipeline.base.command import command
from pipeline.evaluation import evaluate
from pipeline.results.failures import failure_noted
from pipeline.results.records import write_result
from pipeline.study.arguments import cell_of_stage


@command
def main() -> None:
    study, cell = cell_of_stage("evaluate", "Evaluate a trained cell on the held-out documents and zero-shot tasks.")
    with failure_noted("evaluate", cell.name):
        write_result(paths.result("evaluate", cell.name), evaluate(study, cell))
    tracking.catch_up(study.name, cell.name)


if __name__ == "__main__":
    main()
