"""Result files to what they say: fronts, speed at equal quality, scaling fits, figures and the report."""

from pipeline.analysis.report import write_report

__all__ = ["write_report"]
