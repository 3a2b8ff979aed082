"""Stage benchmark: a cell's generation speed and memory, into results/benchmark."""

from pipeline import tracking
from pipeline.base import paths
from pipeline.base.command import command
from pipeline.results.failures import failure_noted
from pipeline.results.records import write_result
from pipeline.study.arguments import cell_of_stage


@command
def main() -> None:
    study, cell = cell_of_stage("benchmark", "Measure how fast a trained cell generates, and what memory it takes.")
    from pipeline.benchmark.cell import benchmark

    with failure_noted("benchmark", cell.name):
        write_result(paths.result("benchmark", cell.name), benchmark(study, cell))
    tracking.catch_up(study.name, cell.name)


if __name__ == "__main__":
    main()
