"""Stage pretrain: train one cell; Ctrl-C saves its state, and running it again goes on from there."""

from __future__ import annotations

from contextlib import nullcontext

from pipeline import tracking
from pipeline.base import paths
from pipeline.base.command import cell_argument, command
from pipeline.results.failures import failure_noted
from pipeline.results.records import write_result
from pipeline.study import find_cell, load_study


@command
def main() -> None:
    name = cell_argument("pretrain", "Train one cell of params.yaml, or finish what was interrupted.")
    study = load_study()
    cell = find_cell(study, name)
    from pipeline.training import is_main_process, pretrain

    with failure_noted("pretrain", name), tracking.following(study.name, name) if is_main_process() else nullcontext():
        result = pretrain(study, cell)
        if result is not None:
            write_result(paths.result("pretrain", cell.name), result)


if __name__ == "__main__":
    main()
