"""Stage report: every cell's results to tables, figures and one page."""

from __future__ import annotations

import argparse

from pipeline import tracking
from pipeline.analysis import write_report
from pipeline.base.command import command
from pipeline.base.paths import REPORT
from pipeline.study import load_study


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.report", description="Compare the cells of params.yaml.")
    parser.add_argument("--finished", action="store_true", help="those that have all of their results, so far")
    finished = parser.parse_args().finished
    study = load_study()
    print(write_report(study, REPORT, finished=finished).headline)
    tracking.catch_up(study.name, "report")


if __name__ == "__main__":
    main()
