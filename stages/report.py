"""Stage report: every cell's results to tables, figures and one page."""

from __future__ import annotations

from pipeline.analysis import write_report
from pipeline.analysis.tables import terminal_table
from pipeline.command import command
from pipeline.paths import REPORT
from pipeline.study import load_study


@command
def main() -> None:
    findings = write_report(load_study(), REPORT)
    print(terminal_table(findings.rows, findings.fronts))
    print(f"\n{findings.headline}\n")
    for note in findings.notes:
        print(f"note: {note}")
    print(f"{REPORT / 'index.html'}: the report, opens in any browser; {REPORT / 'results.csv'}: every number")


if __name__ == "__main__":
    main()
