"""Stage report: the results that there are to tables, figures and one page, and what cells lack."""

from __future__ import annotations

from pipeline import tracking
from pipeline.analysis.page.report import write_report
from pipeline.analysis.page.vega import write_library
from pipeline.analysis.rows.load import told
from pipeline.base.command import command
from pipeline.base.errors import UserError
from pipeline.base.paths import PLOTS, REPORT
from pipeline.study.arguments import stage_parser, study_of


@command
def main() -> None:
    parser = stage_parser("report", "Compare the cells of params.yaml.")
    parser.add_argument("--finished", action="store_true", help="results that are still missing are no error")
    arguments = parser.parse_args()
    study = study_of(arguments)
    findings = write_report(study, REPORT)
    write_library(PLOTS / "vega.js")  # with which the page of `dvc plots show` needs no network
    print(findings.headline)
    for line in told(findings.missing):
        print(f"missing: {line}")
    tracking.catch_up(study.name, "report")
    if findings.missing and not arguments.finished:
        cells = ", ".join(lacking.cell for lacking in findings.missing)
        without = f"made without results of {cells}, as said above"
        raise UserError(f"{REPORT}: {without}; `dvc repro` goes on with what is missing")


if __name__ == "__main__":
    main()
