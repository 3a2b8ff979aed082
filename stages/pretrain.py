"""Stage pretrain: train one cell; Ctrl-C saves its state, and running it again goes on from there."""

from __future__ import annotations

from contextlib import nullcontext

from pipeline import tracking
from pipeline.base import paths
from pipeline.base.command import command
from pipeline.results.failures import failure_noted
from pipeline.results.records import write_result
from pipeline.study.arguments import cell_of_stage


@command
def main() -> None:
    study, cell = cell_of_stage("pretrain", "Train one cell of params.yaml, or finish what was interrupted.")
    from pipeline.training import is_main_process, pretrain

    following = tracking.following(study.name, cell.name) if is_main_process() else nullcontext()
    with failure_noted("pretrain", cell.name), following:
        result = pretrain(study, cell)
        if result is not None:
            write_result(paths.result("pretrain", cell.name), result)


if __name__ == "__main__":
    main()
