"""Stage report: every cell's results to tables, figures and one page."""

from __future__ import annotations

from pipeline import tracking
from pipeline.analysis import write_report
from pipeline.base.command import command
from pipeline.base.paths import REPORT
from pipeline.study.arguments import stage_parser, study_of


@command
def main() -> None:
    parser = stage_parser("report", "Compare the cells of params.yaml.")
    parser.add_argument("--finished", action="store_true", help="those that have all of their results, so far")
    arguments = parser.parse_args()
    study = study_of(arguments)
    print(write_report(study, REPORT, finished=arguments.finished).headline)
    tracking.catch_up(study.name, "report")


if __name__ == "__main__":
    main()
