"""Stage report: the results that there are to tables, figures and one page, and which cells are missing."""

from __future__ import annotations

import argparse

from pipeline import tracking
from pipeline.analysis.page.report import write_report
from pipeline.base.command import command
from pipeline.base.errors import UserError
from pipeline.base.paths import REPORT
from pipeline.study import load_study


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.report", description="Compare the cells of params.yaml.")
    parser.add_argument("--finished", action="store_true", help="cells that are still missing are no error")
    finished = parser.parse_args().finished
    study = load_study()
    findings = write_report(study, REPORT)
    print(findings.headline)
    for each in findings.missing:
        print(f"missing: {each}")
    tracking.catch_up(study.name, "report")
    if findings.missing and not finished:
        lacking = ", ".join(each.cell for each in findings.missing)
        raise UserError(f"{REPORT}: made without {lacking}, as said above; `dvc repro` goes on with what is missing")


if __name__ == "__main__":
    main()
