"""Stage report: every cell's results to tables, figures and one page."""

from __future__ import annotations

from pipeline import tracking
from pipeline.analysis import write_report
from pipeline.command import command
from pipeline.paths import REPORT
from pipeline.study import load_study


@command
def main() -> None:
    study = load_study()
    print(write_report(study, REPORT).headline)
    tracking.catch_up(study.name, "report")


if __name__ == "__main__":
    main()
