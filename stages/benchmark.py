"""Stage benchmark: a cell's generation speed and memory, into results/benchmark."""

from pipeline import tracking
from pipeline.base import paths
from pipeline.base.command import cell_argument, command
from pipeline.results.failures import failure_noted
from pipeline.results.records import write_result
from pipeline.study import find_cell, load_study


@command
def main() -> None:
    name = cell_argument("benchmark", "Measure how fast a trained cell generates, and what memory it takes.")
    study = load_study()
    cell = find_cell(study, name)
    from pipeline.benchmark.cell import benchmark

    with failure_noted("benchmark", name):
        write_result(paths.result("benchmark", name), benchmark(study, cell))
    tracking.catch_up(study.name, name)


if __name__ == "__main__":
    main()
